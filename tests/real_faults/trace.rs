//! Reads what `strace -f -y -x` wrote: calls with their beginnings and ends in order.

use std::collections::{HashMap, HashSet};

/// What is traced.
pub const CALLS: &str = "openat,fdatasync,fsync,pwritev,pwritev2,pwrite64,write,writev,sendmsg,sendto,rename,renameat,\
                         renameat2,unlink,unlinkat,ftruncate";
/// So many bytes of each buffer are shown.
pub const SHOWN: usize = 20_000;

/// What is said of a call that is held when it has been made.
pub const HELD: &str = "(DELAYED)";

/// A buffer: the bytes that were shown, and how many there were.
#[derive(Clone, Debug)]
pub struct Piece {
    pub shown: Vec<u8>,
    pub len: usize,
}

/// A call.
#[derive(Clone, Debug)]
pub enum Call {
    Create(String),
    Write { path: String, pieces: Vec<Piece>, position: Option<u64> },
    Sync(String),
    Rename(String, String),
    Unlink(String),
    Truncate(String),
    Send(Vec<u8>),
}

/// A call as one thread made it.
#[derive(Clone, Debug)]
pub struct Made {
    pub thread: u32,
    /// Name of the system call.
    pub name: String,
    pub call: Call,
    /// What was changed by `strace -e inject`.
    pub injected: bool,
    /// What was held by it when it had been made.
    pub held: bool,
    /// By a file that was opened to be written past the page cache.
    pub direct: bool,
    /// What it gave back; nothing if it never came back.
    pub returned: Option<i64>,
}

impl Made {
    /// A write of which something was written, and not all.
    pub fn is_short(&self) -> bool {
        let Call::Write { pieces, .. } = &self.call else { return false };
        let asked: usize = pieces.iter().map(|piece| piece.len).sum();
        self.returned.is_some_and(|returned| returned > 0 && returned < asked as i64)
    }
}

/// The moments of a trace: a call begins, or has ended well or not.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    Begin(usize),
    End(usize, bool),
}

impl Moment {
    /// Of which call.
    pub fn of(self) -> usize {
        let (Self::Begin(i) | Self::End(i, _)) = self;
        i
    }
}

/// A trace.
#[derive(Debug, Default)]
pub struct Trace {
    pub calls: Vec<Made>,
    pub moments: Vec<Moment>,
    /// Descriptors that go past the page cache.
    pub direct: HashSet<String>,
}

impl Trace {
    pub fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        let mut pending: HashMap<u32, (Option<usize>, &str)> = HashMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let (Ok(thread), rest) = (thread.parse(), rest.trim_start()) else { continue };
            if rest.starts_with("<...") {
                if let Some((found, begun)) = pending.remove(&thread) {
                    trace.end(found, begun, rest);
                }
                continue;
            }
            let unfinished = rest.ends_with("<unfinished ...>");
            let Some((name, arguments)) = rest.split_once('(').filter(|(name, _)| !name.contains(' ')) else {
                continue;
            };
            let found = call(name, arguments).map(|call| {
                let descriptor = arguments.split_once('<').map_or("", |(number, _)| number);
                // It has one buffer; others with that descriptor may have been opened unseen.
                let is_one = matches!(&call, Call::Write { pieces, .. } if pieces.len() == 1);
                let direct = is_one && trace.direct.contains(descriptor);
                let (injected, held, returned) = (false, false, None);
                trace.calls.push(Made { thread, name: name.to_owned(), call, injected, held, direct, returned });
                trace.moments.push(Moment::Begin(trace.calls.len() - 1));
                trace.calls.len() - 1
            });
            if unfinished {
                pending.insert(thread, (found, rest));
            } else {
                trace.end(found, rest, rest);
            }
        }
        trace
    }

    /// A call has ended that was found, or is none that matters here; its line may be in two parts, or twice the same.
    fn end(&mut self, found: Option<usize>, begun: &str, ended: &str) {
        let result = ended.rsplit_once(" = ").map_or("?", |(_, result)| result);
        if begun.starts_with("openat(") {
            self.opened(begun, result);
        }
        let Some(i) = found else { return };
        let made = &mut self.calls[i];
        (made.injected, made.held) = (result.contains("(INJECTED)"), result.contains(HELD));
        made.returned = result.split([' ', '<']).next().and_then(|number| number.parse().ok());
        // A call that never returned has no end.
        if !result.starts_with('?') {
            self.moments.push(Moment::End(i, !result.starts_with('-')));
        }
    }

    /// A descriptor is another file's from now on.
    fn opened(&mut self, begun: &str, result: &str) {
        let descriptor = result.split('<').next().unwrap_or_default().to_owned();
        let flags = begun.rsplit_once('"').map_or("", |(_, flags)| flags);
        if flags.split(['|', ',', ' ', ')']).any(|flag| flag == "O_DIRECT") {
            self.direct.insert(descriptor);
        } else {
            self.direct.remove(&descriptor);
        }
    }
}

fn call(name: &str, arguments: &str) -> Option<Call> {
    Some(match name {
        "openat" if arguments.contains("O_CREAT") => Call::Create(strings(arguments).next()?),
        "fdatasync" | "fsync" => Call::Sync(path_of(arguments)?),
        "pwritev" | "pwritev2" | "pwrite64" | "write" | "writev" => {
            let path = path_of(arguments).filter(|path| path.starts_with('/') && !path.starts_with("/dev"))?;
            let positioned = name.starts_with('p');
            let (pieces, rest) = buffers(arguments);
            let words = rest.split([')', '<']).next().unwrap_or_default().trim_end();
            let position = words.rsplit(", ").nth(usize::from(name == "pwritev2")).and_then(|word| word.parse().ok());
            Call::Write { path, pieces, position: position.filter(|_| positioned) }
        }
        "rename" | "renameat" | "renameat2" => {
            let mut names = strings(arguments);
            Call::Rename(names.next()?, names.next()?)
        }
        "unlink" | "unlinkat" => Call::Unlink(strings(arguments).next()?),
        "ftruncate" => Call::Truncate(path_of(arguments)?),
        "sendmsg" | "sendto" => {
            let (pieces, _) = buffers(arguments);
            Call::Send(pieces.into_iter().flat_map(|piece| piece.shown).collect())
        }
        _ => return None,
    })
}

/// `12</some/path>…`: the path.
fn path_of(arguments: &str) -> Option<String> {
    let from = arguments.find('<')? + 1;
    let to = from + arguments[from..].find('>')?;
    Some(arguments[from..to].to_owned())
}

/// The strings among the arguments that are names.
fn strings(arguments: &str) -> impl Iterator<Item = String> {
    arguments.split('"').skip(1).step_by(2).map(str::to_owned)
}

/// All buffers, and what follows the last one.
fn buffers(arguments: &str) -> (Vec<Piece>, &str) {
    let mut pieces = Vec::new();
    let mut rest = arguments;
    while let Some(from) = rest.find('"') {
        let (shown, after) = unescape(&rest[from + 1..]);
        rest = after;
        let words = rest.trim_start_matches("...").trim_start_matches(", ");
        let digits = words.strip_prefix("iov_len=").unwrap_or(words);
        let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
        let len = number.parse().unwrap_or(shown.len());
        pieces.push(Piece { shown, len });
    }
    (pieces, rest)
}

/// Bytes up to the closing quote, and what comes after it.
fn unescape(text: &str) -> (Vec<u8>, &str) {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() && bytes[at] != b'"' {
        if bytes[at] != b'\\' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let code = bytes.get(at + 1).copied().unwrap_or(b'\\');
        if code == b'x' {
            out.push(u8::from_str_radix(&text[at + 2..at + 4], 16).unwrap_or_default());
            at += 4;
            continue;
        }
        let digits = bytes[at + 1..].iter().take(3).take_while(|b| (b'0'..b'8').contains(b)).count();
        if digits > 0 {
            out.push(u16::from_str_radix(&text[at + 1..at + 1 + digits], 8).unwrap_or_default() as u8);
            at += 1 + digits;
            continue;
        }
        out.push(match code {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            other => other,
        });
        at += 2;
    }
    (out, &text[(at + 1).min(text.len())..])
}
