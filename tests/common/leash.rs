//! Child processes that cannot outlive the test process, however that ends.
//!
//! A `Drop` guard covers a return and a panic. A SIGKILL of the test process is covered by one small shell, the leash:
//! it is told the process ids, reads its standard input, and kills what is left when that input closes.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

const KEEPER: &str = r#"
held=" "
while read -r what pid; do
    case $what in
    hold) held="$held$pid " ;;
    let) held=$(printf '%s' "$held" | sed "s/ $pid / /") ;;
    esac
done
for pid in $held; do kill -CONT "$pid"; kill -KILL "$pid"; done 2>/dev/null
"#;

#[expect(clippy::zombie_processes, reason = "the keeper outlives this process by design")]
fn tell(line: &str) {
    static KEEPER_INPUT: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let input = KEEPER_INPUT.get_or_init(|| {
        let mut keeper = start(Command::new("sh").arg("-c").arg(KEEPER));
        Mutex::new(keeper.stdin.take().unwrap())
    });
    let mut input = input.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    input.write_all(line.as_bytes()).unwrap();
}

/// Starts a helper with a piped standard input, in a process group of its own (so that Ctrl-C in a terminal ends the
/// tests, and the closing pipe then ends the helper).
pub fn start(command: &mut Command) -> Child {
    use std::os::unix::process::CommandExt;
    command.stdin(Stdio::piped()).process_group(0).spawn().unwrap()
}

/// From now on `pid` is killed when the test process ends.
pub fn hold(pid: u32) {
    tell(&format!("hold {pid}\n"));
}

/// `pid` has ended and been waited for; its number may be used again by others.
pub fn release(pid: u32) {
    tell(&format!("let {pid}\n"));
}
