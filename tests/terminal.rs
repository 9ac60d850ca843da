//! A pseudo-terminal of a given width as stdout of the program, and the contents of its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

use unicode_width::UnicodeWidthStr;

/// Runs a program whose stdout is a terminal of `columns`, with `input` on stdin. Its exit code and the lines it wrote there.
pub fn at_terminal(mut command: Command, columns: u16, input: &str) -> (i32, Vec<String>) {
    let (master, slave) = pair(columns);
    let mut child = command.stdin(Stdio::piped()).stdout(slave).stderr(Stdio::piped()).spawn().unwrap();
    // The command holds the other end of the terminal open.
    drop(command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let mut notes = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || {
        let mut text = String::new();
        notes.read_to_string(&mut text).unwrap();
        text
    });
    let text = written(master);
    let code = child.wait().unwrap().code().unwrap();
    writer.join().unwrap().unwrap();
    let told = stderr.join().unwrap();
    assert!(!told.contains("panicked"), "{told}");
    assert!(code == 0 || !told.is_empty(), "{text}");
    (code, text.replace("\r\n", "\n").lines().map(str::to_string).collect())
}

/// Runs a program whose stdout and stderr are one terminal of `columns`, as it is for a person. Its exit code and what it wrote.
pub fn on_screen(mut command: Command, columns: u16) -> (i32, String) {
    let (master, slave) = pair(columns);
    let stderr = slave.try_clone().unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(slave).stderr(stderr).spawn().unwrap();
    drop(command);
    let text = written(master);
    (child.wait().unwrap().code().unwrap(), text)
}

/// What is drawn from the left margin on: lines, and what bars write over them, without the sequences that steer a terminal.
pub fn drawn(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            // ESC [ numbers letter: a move of the cursor begins anew at the margin, a colour does not.
            '\u{1b}' => {
                let end = rest.by_ref().skip_while(|c| *c == '[').find(char::is_ascii_alphabetic);
                plain.push_str(if end == Some('m') { "" } else { "\n" });
            }
            '\r' => plain.push('\n'),
            c => plain.push(c),
        }
    }
    plain.lines().filter(|line| !line.trim().is_empty()).map(str::to_string).collect()
}

/// Both ends of a terminal: what it shows, and what a program writes to.
fn pair(columns: u16) -> (File, File) {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the two descriptors are written, nothing else.
    let made = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open and belong to nobody else.
    unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) }
}

/// Everything that is written to a terminal until nobody has it open.
fn written(mut master: File) -> String {
    let mut screen = Vec::new();
    let mut buffer = [0; 4096];
    // A terminal that nobody has open any more is an error, not an end.
    while let Ok(count) = master.read(&mut buffer)
        && count > 0
    {
        screen.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(screen).unwrap()
}

/// Lines that a terminal of `columns` would break.
pub fn too_wide(lines: &[String], columns: usize) -> Vec<&String> {
    lines.iter().filter(|line| line.width() > columns).collect()
}
