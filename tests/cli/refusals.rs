//! The binary from outside: what it refuses, what would keep it from starting, and that neither shows a secret.

use super::{forebay, outcome};
use forebay::io::Storage;
use forebay::io::disk::Disk;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

const SECRET: &str = "hunter2";

/// A command with settings for `dir` and a port nobody listens on.
fn in_dir(dir: &Path, command: &[&str]) -> Command {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = forebay(command);
    command.args(["--brokers", &format!("127.0.0.1:{port}"), "--set", "wal.segment_bytes=64KiB"]);
    command.arg("--wal").arg(dir.join("log"));
    command
}

fn started(dir: &Path, command: &[&str]) -> Command {
    let mut command = in_dir(dir, command);
    command.args(["--topic", "orders", "--set", "server.listen=off"]);
    command.args(["--sink", &format!("file:{}", dir.join("out").display())]);
    command
}

/// What `forebay check --offline` finds in the way: exit code, and of what.
fn in_the_way(command: &mut Command) -> (i32, Vec<String>) {
    let (code, out, err) = outcome(command.args(["--output", "json"]));
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let what = found["connections"].as_array().unwrap().iter().map(|row| row["what"].as_str().unwrap().to_string());
    (code, what.filter(|what| what != "fetching").collect())
}

#[test]
fn what_librdkafka_refuses_is_named_and_its_value_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let set = format!("kafka.properties.ssl.truststore.password={SECRET}");
    let log = dir.path().join("log");
    let repair = ["wal", "repair", log.to_str().unwrap(), "--from-kafka", "--brokers", "127.0.0.1:1", "--set", &set];
    for mut command in [
        started(dir.path(), &["run", "--set", &set]),
        started(dir.path(), &["check", "--set", &set]),
        started(dir.path(), &["check", "--offline", "--set", &set]),
        started(dir.path(), &["check", "--offline", "--output", "json", "--set", &set]),
        forebay(&repair),
        forebay(&[
            "bench",
            "consume",
            "--brokers",
            "a",
            "--topic",
            "t",
            "--property",
            &set["kafka.properties.".len()..],
        ]),
    ] {
        let (code, out, err) = outcome(&mut command);
        let said = format!("{out}{err}");
        assert!(code == 78 || command.get_args().next() == Some(OsStr::new("bench")), "{code}: {said}");
        assert!(said.contains("ssl.truststore.password") && !said.contains(SECRET), "{said}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let check = || started(dir.path(), &["check", "--offline"]);
    let typo = concat!("FOREBAY_", "REQUIR");
    let (code, _, err) = outcome(check().env(typo, "exactly-once"));
    assert!(code == 78 && err.contains("did you mean require?") && err.contains(typo), "{err}");
    let broken = OsStr::from_bytes(b"caf\xe9");
    let (code, _, err) = outcome(check().env("FOREBAY_KAFKA__GROUP", broken));
    assert!(code == 78 && err.contains("not UTF-8 (environment FOREBAY_KAFKA__GROUP)"), "{err}");
    let (code, out, err) = outcome(check().env("FOREBAY_SEED", "7").env("FOREBAY_HOOK_AFTER_SYNC", broken));
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn check_says_what_would_keep_a_run_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let check = || in_dir(dir.path(), &["check", "--offline"]);
    let orders = || {
        let mut command = check();
        command.args(["--topic", "orders"]);
        command
    };
    assert_eq!(in_the_way(orders().args(["--sink", "null", "--topic", "^a.*"])), (0, vec![]));
    assert_eq!(in_the_way(check().args(["--sink", "null", "--topic", "^("])), (78, vec!["topics".to_string()]));
    let unknown = ["--sink", "null", "--set", "kafka.properties.no.such.thing=1"];
    assert_eq!(in_the_way(orders().args(unknown)), (78, vec!["librdkafka".to_string()]));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for below in [file.clone(), file.join("out")] {
        let sink = format!("file:{}", below.display());
        assert_eq!(in_the_way(orders().args(["--sink", &sink])), (74, vec!["sink".to_string()]), "{sink}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("server.listen={}", taken.local_addr().unwrap());
    let found = in_the_way(orders().args(["--sink", "null", "--set", &listen]));
    assert_eq!(found, (78, vec!["server.listen".to_string()]));
    std::fs::create_dir(dir.path().join("log")).unwrap();
    let held = Disk.lock(&dir.path().join("log/LOCK")).unwrap().unwrap();
    let while_it_runs = in_the_way(orders().args(["--sink", "null", "--set", &listen]));
    assert_eq!(while_it_runs, (0, vec!["log".to_string()]), "a running service may be checked");
    drop(held);
    assert_eq!(in_the_way(orders().args(["--sink", "null"])), (0, vec![]));
}

#[test]
fn with_json_everything_on_standard_error_is_json() {
    let dir = tempfile::tempdir().unwrap();
    let json = |text: &str| -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text.lines().map(parse).collect()
    };
    let args = ["run", "--exit-at-end", "--set", "kafka.unreachable_timeout=1s", "--set", "log.format=json"];
    let (code, _, err) = outcome(&mut started(dir.path(), &args));
    let lines = json(&err);
    let last = lines.last().unwrap();
    assert_eq!((code, last["level"].as_str()), (69, Some("ERROR")), "{err}");
    assert!(last["message"].as_str().is_some_and(|message| message.contains("127.0.0.1")), "{err}");

    let args =
        ["run", "--sink", "stdout", "--topic", "orders", "--set", "server.listen=off", "--set", "log.format=json"];
    let mut command = in_dir(&dir.path().join("other"), &args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("the log is open") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    while stderr.read_line(&mut said).unwrap() > 0 {}
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    let lines = json(&said);
    let is_stop = |line: &Value| line["message"].as_str().is_some_and(|message| message.starts_with("stopping"));
    assert!(lines.iter().any(is_stop), "{said}");
    assert!(lines.iter().any(|line| line["records"] == 0), "{said}");
}
