//! A pseudo-terminal of so many columns as stdout of the program, and what its screen shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

use unicode_width::UnicodeWidthStr;

/// Runs a program whose stdout is a terminal of `columns`, with `input` on stdin. Its exit code and the lines it wrote there.
pub fn at_terminal(mut command: Command, columns: u16, input: &str) -> (i32, Vec<String>) {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the two descriptors are written, nothing else.
    let made = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: both are open and belong to nobody else.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
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
    let mut screen = Vec::new();
    let mut buffer = [0; 4096];
    // A terminal that nobody has open any more is an error, not an end.
    while let Ok(count) = master.read(&mut buffer)
        && count > 0
    {
        screen.extend_from_slice(&buffer[..count]);
    }
    let code = child.wait().unwrap().code().unwrap();
    writer.join().unwrap().unwrap();
    let told = stderr.join().unwrap();
    assert!(!told.contains("panicked"), "{told}");
    let text = String::from_utf8(screen).unwrap();
    assert!(code == 0 || !told.is_empty(), "{text}");
    (code, text.replace("\r\n", "\n").lines().map(str::to_string).collect())
}

/// Lines that a terminal of `columns` would break.
pub fn too_wide(lines: &[String], columns: usize) -> Vec<&String> {
    lines.iter().filter(|line| line.width() > columns).collect()
}
