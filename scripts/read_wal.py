#!/usr/bin/env python3
"""Reads and verifies a log without Forebay; written from wal_format.md alone, with Python's standard library.

Standard output: a JSON line per segment header, frame and damaged place. Standard error: what does not verify: `torn`
(a tail nobody was promised), `damaged` (nothing is lost), `corrupt-block`, `corrupt`. Exit code 0: every promised byte
verifies; 3: damage; 1: not a log that this reader knows. Never writes.
"""
import argparse, base64, json, mmap, os, re, struct, sys
from zlib import crc32

PAGE, FIRST_FRAME, MAX_PAYLOAD, PIECE, BOOL = 4096, 8192, 64 << 20, 1 << 20, b"\0\1"
SEGMENT, FRAME, BATCH = map(struct.Struct, ("<8sII16s10QI", "<4sBBHIIQQQqqIiiIIIHHIII", ">qiibIhiqqqhii"))
SEGMENT_FIELDS = """magic version features wal_id number salt first_lsn key_id retired_below built_end
predecessor_number predecessor_salt predecessor_end_lsn predecessor_end_position predecessor_digest""".split()
FRAME_FIELDS = ("magic kind codec flags payload_len pad_len lsn position synced_through first next topic partition "
                "leader_epoch count digest tenure route zero1 payload_crc zero2 header_crc").split()
SHOWN, MAY_BE_UNUSED = FRAME_FIELDS[4:18] + ["length", "payload_crc", "payload_hash", "entry"], FRAME_FIELDS[9:18]
INDEX_FIELDS = "lsn position length digest topic partition first next tenure count".split()
CONTROL, BLOCK, RETIRED_BELOW, STATE, FOOTER = -1, 1, 14, 16, 17
RANGE, PLANNED = "first next topic partition tenure", "list {topic: u32, partition: i32, from: i64, until: i64}"
KINDS = {  # number: (name, header fields in use, payload)
    1: ("Block", RANGE + " leader_epoch count digest", ""), 2: ("Empty", RANGE, ""), 3: ("Gap", RANGE, "reason: str"),
    4: ("Topic", "topic", "name: str, id: uuid"), 5: ("Owned", RANGE, "acked_entries: str"), 6: ("Disowned", RANGE, ""),
    7: ("Confirmed", "next topic partition tenure", ""), 8: ("Returning", RANGE, ""),
    9: ("Named", "topic partition route", "name: str"), 11: ("Route", "route", "name: str"),
    10: ("Delivered", "first next topic partition route", "through_lsn: u64, keep_from: option i64, detail: bytes"),
    12: ("Plan", "route", f"id: u64, time_ms: i64, ranges: {PLANNED}"), 13: ("PlanDropped", "route", "id: u64"),
    14: ("RetiredBelow", "", "segment: u64, lsn: u64"), 15: ("Idle", "", ""),
    16: ("State", "", "wal_id: u128, lsn: u64, retired_below: u64, kept_lsn: u64, "
         "topics: list {number: u32, name: str, id: uuid}, routes: list {route: u16, name: str}, "
         "plans: list {route: u16, id: u64, time_ms: i64, ranges: " + PLANNED + "}, "
         "partitions: list {topic: u32, partition: i32, tenure: u32, tenure_start: i64, owned: bool, admitted: i64, "
         "acked: i64, acked_entries: str, undecided: list {tenure: u32, first: i64, next: i64}, disowned: list "
         "{tenure: u32, first: i64, next: i64, lsn: u64}, gaps: list {first: i64, next: i64, reason: str}, "
         "delivery: list {route: u16, delivered: i64, delivered_lsn: u64, "
         "receipt: option {first: i64, next: i64, keep_from: option i64, detail: bytes}, named: option str}}"),
    17: ("Footer", "", "blocks: list {lsn: u64, position: u64, length: u32, digest: u32, topic: u32, partition: i32, "
         "first: i64, next: i64, tenure: u32, count: u32}")}


class Cursor:
    """Takes values off bytes; a ValueError where they end too early."""
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError(f"{size} bytes at byte {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size=8, signed=False):
        return int.from_bytes(self.take(size), "little", signed=signed)

    def varint(self):
        value = shift = 0
        while (byte := self.take(1)[0]) >= 128:
            value, shift = value | (byte & 127) << shift, shift + 7
        value |= byte << shift
        return value >> 1 ^ -(value & 1)

    def text(self):
        raw = None if (length := self.varint()) < 0 else self.take(length)
        try:
            return raw if raw is None else raw.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode()}

    def record(self, base, time):
        length, begin, _ = self.varint(), self.at, self.take(1)
        time, offset, key, value = time + self.varint(), base + self.varint(), self.text(), self.text()
        headers = [[self.text(), self.text()] for _ in range(self.varint())]
        if self.at != begin + length:
            raise ValueError(f"the length of the record with offset {offset} is wrong")
        return {"offset": offset, "timestamp": time, "key": key, "value": value, "headers": headers}


def reader(words):
    """Makes the function that takes a value of a type, written as in the format's tables, off a cursor."""
    word, fields = words.pop(0), []
    if word == "{":
        while (name := words.pop(0)) != "}":
            fields.append((name, reader(words)))
        return lambda d: {name: read(d) for name, read in fields}
    if word in ("list", "option"):
        read, many = reader(words), word == "list"
        return lambda d: [read(d) for _ in range(d.number())] if many else read(d) if BOOL.index(d.take(1)) else None
    simple = {"str": lambda d: d.take(d.number()).decode(), "bytes": lambda d: d.take(d.number()).hex(),
              "uuid": lambda d: d.take(16).hex(), "u128": lambda d: d.take(16)[::-1].hex(),
              "bool": lambda d: BOOL.index(d.take(1)) == 1}
    return simple.get(word) or (lambda d: d.number(int(word[1:]) // 8, word[0] == "i"))


def payload_crc(data):
    pieces = [crc32(data[at:at + PIECE]) for at in range(0, len(data), PIECE)] or [0]
    return pieces[0] if len(pieces) == 1 else crc32(struct.pack(f"<{len(pieces)}I", *pieces))


READERS = {number: reader(re.findall(r"[{}]|\w+", "{" + kind[2] + "}")) for number, kind in KINDS.items()}
CRC32C = list(range(256))
for _ in range(8):
    CRC32C = [crc >> 1 ^ 0x82F63B78 * (crc & 1) for crc in CRC32C]


def crc32c(data, crc=0xFFFFFFFF):
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def content_of(frame, payload):
    """What the payload says; of a block the records, if they are wanted. A ValueError if it is not as it must be."""
    kind, data, records, total = frame["kind"], Cursor(payload), [], 0
    if any(frame[name] for name in MAY_BE_UNUSED if name not in KINDS[kind][1].split()):
        raise ValueError("a header field that the kind does not use is not zero")
    entry = READERS[kind](data)
    while data.at < len(payload):
        start, batch = data.at, BATCH.unpack(data.take(BATCH.size))
        base, time, codec, total = batch[0], batch[7], batch[5] & 7, total + batch[-1]
        body = Cursor(data.take(batch[1] + 12 - BATCH.size))
        if kind != BLOCK or batch[3] != 2 or OPTIONS.records and crc32c(payload[start + 21:data.at]) != batch[4]:
            raise ValueError(f"what begins at byte {start} does not verify")
        is_own = not codec and not start and data.at == len(payload) and base == frame["first"]
        if is_own and crc32(body.data, crc32(struct.pack("<qq", base, time))) != frame["digest"]:
            raise ValueError("the digest is wrong")
        if OPTIONS.records:
            packed = {"offset": base, "count": batch[-1], "codec": codec}  # not in the standard library
            records += [packed] if codec else [body.record(base, time) for _ in range(batch[-1])]
            body.take(0 if codec or body.at == len(body.data) else -1)
    if total != frame["count"]:
        raise ValueError(f"{total} records, the frame header says {frame['count']}")
    return records if kind == BLOCK else entry


class Segment:
    def __init__(self, directory, number):
        self.number, self.path = number, os.path.join(directory, f"{number:020}.wal")
        with open(self.path, "rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self.data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if self.size else b""
        self.copies = [self.header_at(0), self.header_at(PAGE)]
        self.header = self.copies[0] or self.copies[1]
        if self.header and self.header["number"] != number:
            sys.exit(f"{self.path}: does not belong there: its header says segment {self.header['number']}")
        self.states, self.start = self.find_states() if self.header else ([], None)

    def header_at(self, at):
        page = self.data[at:at + PAGE]
        if len(page) < PAGE or page[:8] != b"FOREBAYW" or crc32(page[:4092]) != int.from_bytes(page[4092:], "little"):
            return None
        header = dict(zip(SEGMENT_FIELDS, SEGMENT.unpack_from(page)))
        if header["version"] != 1 or header["features"] or header["key_id"]:
            sys.exit(f"{self.path}: not known: { {name: header[name] for name in ('version', 'features', 'key_id')} }")
        header["wal_id"] = header["wal_id"][::-1].hex()
        sound = not any(page[SEGMENT.size:4092]) and header["first_lsn"] and header["built_end"] % PAGE == 0
        return header if sound and not (header["first_lsn"] | header["number"]) >> 63 else None

    def frame_at(self, at, limit):
        """The frame that begins here if its header verifies and it ends below the limit; `damage`: what else is bad."""
        raw = self.data[at:at + FRAME.size]
        if len(raw) < FRAME.size or raw[:4] != b"FBF1":
            return None
        frame = dict(zip(FRAME_FIELDS, FRAME.unpack(raw)), raw=raw)
        kind, length = frame["kind"], FRAME.size + frame["payload_len"] + frame["pad_len"]
        start, end = at + FRAME.size, at + length
        right = crc32(raw[:92], crc32(self.header["salt"].to_bytes(8, "little"))) == frame["header_crc"]
        known = kind in KINDS and not any(frame[name] for name in ("codec", "flags", "zero1", "zero2"))
        sound = frame["payload_len"] <= MAX_PAYLOAD and frame["pad_len"] < PAGE and length % 8 == 0
        if not right or not known or not sound or frame["position"] != at or end > limit or frame["lsn"] >> 63:
            return None
        payload, pad = self.data[start:end - frame["pad_len"]], self.data[end - frame["pad_len"]:end]
        frame.update(length=length, end=end, payload_hash=crc32(payload), after=frame["lsn"] + 1,
                     expected=frame["lsn"] + (kind in (STATE, FOOTER)))
        try:
            right = end <= self.size and payload_crc(payload) == frame["payload_crc"]
            frame["damage"] = "payload" if not right else "pad" if any(pad) else None
            frame["entry"] = content_of(frame, payload) if right else "payload"
        except ValueError as error:
            frame["damage"] = f"content ({error})"
        return frame

    def find_states(self):
        """Both `State` frames (None where the header is bad), and where they end (None: not known)."""
        found = (self.frame_at(at, self.size) for at in range(FIRST_FRAME, self.size, PAGE))
        found = (f for f in found if f and f["kind"] == STATE and f["position"] - FIRST_FRAME in (0, f["length"]))
        if not (state := next(found, None)) or state["position"] > FIRST_FRAME:
            return [None, state], state and state["end"]
        return [state, next((f for f in found if f["position"] == state["end"]), None)], state["end"] + state["length"]

    def scan(self, limit, is_sealed):
        """What follows the States: frames, and places without a good header (kind 0); and whether they are `proven`."""
        at, lsn, pieces, built = self.start or FIRST_FRAME, self.header["first_lsn"], [], self.header["built_end"]
        witness = lsn - 1
        while at < limit:
            frame, begin = self.frame_at(at, limit), at
            if not frame or frame["expected"] != lsn:
                frame = None
                while at >= 0 and (not frame or frame["expected"] < lsn):
                    at = self.data.find(b"FBF1", at + 1, limit)
                    frame = self.frame_at(at, limit) if at % 8 == 0 else None
                after, at = (frame["expected"], at) if frame else (lsn, limit)
                pieces.append(dict(kind=0, position=begin, end=at, lsn=lsn, expected=lsn, after=after, damage="header"))
                lsn = after
            if frame:
                pieces.append(frame)
                at, lsn, witness = frame["end"], frame["after"], max(witness, frame["synced_through"])
        pieces = [dict(p, proven=is_sealed or p["position"] < built or p["expected"] <= witness) for p in pieces]
        return pieces[:-1] if pieces and not pieces[-1]["kind"] and not pieces[-1]["proven"] else pieces


class Log:
    def __init__(self, directory):
        self.worst, names = 0, sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
        for name in names:
            if not re.fullmatch(r"LOCK|.*\.spare(\.tmp)?|\d{20}\.(wal|torn)|\d{20}-\d{20}\.repair(\.tmp)?", name):
                sys.exit(f"{directory}: {name} does not belong to a log")
        self.segments = [Segment(directory, int(name[:20])) for name in names if name.endswith(".wal")]

    def find(self, verdict, segment, position, lsn, reason):
        self.worst = max(self.worst, 0 if verdict == "torn" else 3)
        print(f"{verdict}: {segment.path}, byte {position}, LSN {lsn}: {reason}", file=sys.stderr)

    def run(self):
        if self.segments and self.segments[-1].header:
            self.drop_retired(self.segments[-1])
        for i, segment in enumerate(self.segments):
            self.check_header(self.segments[i - 1] if i else None, segment)
            if segment.header:
                self.check_frames(segment, self.segments[i + 1:])
        return self.worst

    def drop_retired(self, last):
        retired = max(1, last.header["retired_below"])
        for piece in last.scan(last.size, False):
            if piece["damage"] and not piece["proven"]:
                break
            if piece["kind"] == RETIRED_BELOW and piece["damage"] in (None, "pad"):
                retired = min(max(retired, piece["entry"]["segment"]), last.number)
        self.segments = [segment for segment in self.segments if segment.number >= retired]
        if self.segments[0].number != retired:
            self.find("corrupt", self.segments[0], 0, None, f"the segments between {retired - 1} and it are missing")

    def check_header(self, before, segment):
        header = segment.header
        if not header or segment.copies != [header, header]:
            self.find("damaged" if header else "corrupt", segment, 0, None, "bad copy of the segment header")
        if header:
            print(json.dumps({"kind": "Segment", **{name: header[name] for name in SEGMENT_FIELDS[3:]}}))
        if before and before.number + 1 != segment.number:
            self.find("corrupt", segment, 0, None, f"the segments between {before.number} and it are missing")
        elif header and before and before.header:
            said = [header[name] for name in ("wal_id", "predecessor_number", "predecessor_salt")]
            if (said != [before.header[name] for name in ("wal_id", "number", "salt")]
                    or header["first_lsn"] < header["predecessor_end_lsn"]):
                self.find("corrupt", segment, 0, None, "it does not follow the segment before it")

    def check_frames(self, segment, later):
        by = later[0].header if later and later[0].number == segment.number + 1 else None
        limit, digest, index = by["predecessor_end_position"] if by else segment.size, 0, None
        has_later_state = any(state and not state["damage"] for after in later for state in after.states)
        if bad := sum(not state or bool(state["damage"]) for state in segment.states):
            verdict = "damaged" if bad == 1 or has_later_state else "corrupt"
            self.find(verdict, segment, FIRST_FRAME, None, f"{bad} of the two States")
        pieces = segment.scan(limit, bool(by))
        for piece in segment.states + pieces:
            digest = crc32(piece["raw"][:92], digest) if piece and piece["kind"] and digest is not None else None
            if piece and piece["kind"] == FOOTER and not piece["damage"]:
                index = piece["entry"]["blocks"]
        for piece in filter(None, segment.states + pieces):
            if not piece["damage"]:
                row = dict({name: piece[name] for name in SHOWN}, kind=KINDS[piece["kind"]][0], segment=segment.number)
                print(json.dumps(row, ensure_ascii=False))
            elif piece in pieces:
                self.judge(segment, piece, index if by else None, has_later_state)
        end = pieces[-1]["after"] if pieces else segment.header["first_lsn"]
        if by and (by["predecessor_end_lsn"] != end or digest and by["predecessor_digest"] not in (0, digest)):
            self.find("corrupt", segment, limit, end, "it does not end as the next segment says")
        blocks = [{name: piece[name] for name in INDEX_FIELDS} for piece in pieces if piece["kind"] == BLOCK]
        if index not in (None, blocks) and all(piece["kind"] for piece in pieces):
            self.find("damaged", segment, limit, end, "the footer does not name the blocks that are there")

    def judge(self, segment, piece, index, has_later_state):
        at, kind = piece["position"], piece["kind"]
        if not kind and index is not None:  # what is not in the footer was no block
            kind = BLOCK if any(at <= block["position"] < piece["end"] for block in index) else CONTROL
        place = {"position": at, "end": piece["end"], "lsn": piece["expected"], "part": piece["damage"]}
        print(json.dumps({"kind": "Damage", "segment": segment.number, **place}))
        only_states = not segment.start and at == FIRST_FRAME and piece["after"] == segment.header["first_lsn"]
        folded = has_later_state and (only_states or kind not in (0, BLOCK))
        lossless = kind == FOOTER or piece["damage"] == "pad" or folded
        verdict = "damaged" if lossless else "corrupt-block" if kind == BLOCK else "corrupt"
        self.find(verdict if piece["proven"] else "torn", segment, at, piece["lsn"], f"bad {piece['damage']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--records", action="store_true", help="print records, verify their CRC-32C (slow: some MB/s)")
    parser.add_argument("--output", choices=["jsonl"], default="jsonl")
    sys.exit(Log((OPTIONS := parser.parse_args()).directory).run())
