//! Asks for a password: hidden, at a terminal, or as a line from another program. Never from the command
//! line, which other users of the machine can see.

use rustix::termios::{
    isatty, tcgetattr, tcsetattr, InputModes, LocalModes, OptionalActions, Termios,
};
use std::io::{self, BufRead, Read, Write};

/// Maximum length in bytes of a password.
const MAX_PASSWORD: usize = 1000;

/// Reads a password from standard input. At a terminal it is asked for twice, and not shown. The error is
/// for the user.
pub fn read_password() -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    let typed = if isatty(&stdin) {
        let hidden = HiddenInput::start()?;
        let typed = hidden.line("Password: ")?;
        if hidden.line("The same again: ")? != typed {
            return Err(io::Error::other(
                "these are two different passwords; try again",
            ));
        }
        typed
    } else {
        line(&mut stdin.lock())?
    };
    check(&typed).map_err(io::Error::other)?;
    Ok(typed)
}

/// Checks that a browser can send a password.
fn check(typed: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(typed).map_err(|_| "the password is not in UTF-8")?;
    if text.is_empty() {
        return Err("the password is empty; try again");
    }
    // Those of an arrow key, perhaps.
    match text.chars().any(char::is_control) {
        true => Err("the password has control characters; try again"),
        false => Ok(()),
    }
}

fn too_long() -> io::Error {
    let why = format!("a password of gt has at most {MAX_PASSWORD} bytes");
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Reads bytes up to the end of a line, without the end.
fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    for byte in from.by_ref().bytes() {
        match byte? {
            b'\n' => break,
            _ if line.len() > MAX_PASSWORD => return Err(too_long()),
            byte => line.push(byte),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    match line.len() > MAX_PASSWORD {
        true => Err(too_long()),
        false => Ok(line),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct HiddenInput {
    before: Termios,
}

impl HiddenInput {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        // Each byte comes as it is typed, also Ctrl-C: ended by it, gt would leave the terminal hidden.
        hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        hidden.input_modes |= InputModes::ICRNL;
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }

    /// Asks for a line.
    fn line(&self, prompt: &str) -> io::Result<Vec<u8>> {
        let mut screen = io::stderr();
        screen.write_all(prompt.as_bytes())?;
        screen.flush()?;
        let typed = typed_line(&mut io::stdin().lock());
        screen.write_all(b"\n")?;
        typed
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Reads the bytes that keys send, up to the end of a line, and does what the keys for corrections are
/// for.
fn typed_line(keys: &mut impl BufRead) -> io::Result<Vec<u8>> {
    const CTRL_C: u8 = 3;
    const CTRL_D: u8 = 4;
    const BACKSPACE: u8 = 8;
    const CTRL_U: u8 = 21;
    const DELETE: u8 = 127;
    let mut line = Vec::new();
    for byte in keys.by_ref().bytes() {
        match byte? {
            b'\n' | b'\r' | CTRL_D => return Ok(line),
            CTRL_C => return Err(io::Error::other("interrupted")),
            BACKSPACE | DELETE => {
                // The last character, which may have several bytes (UTF-8).
                while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {}
            }
            CTRL_U => line.clear(),
            _ if line.len() >= MAX_PASSWORD => return Err(too_long()),
            byte => line.push(byte),
        }
    }
    Err(io::Error::other("the terminal has been closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_program_ends_at_its_end() {
        for (text, password) in [
            ("secret\n", "secret"),
            ("secret\r\nmore", "secret"),
            ("two words", "two words"),
            ("\n", ""),
            ("", ""),
        ] {
            let read = line(&mut text.as_bytes()).unwrap();
            assert_eq!(read, password.as_bytes(), "{text:?}");
        }
        let (most, more) = ("a".repeat(1000), "a".repeat(1001));
        assert_eq!(line(&mut most.as_bytes()).unwrap().len(), 1000);
        assert_eq!(
            line(&mut format!("{most}\r\n").as_bytes()).unwrap().len(),
            1000
        );
        let error = line(&mut more.as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "a password of gt has at most 1000 bytes");
    }

    #[test]
    fn a_password_is_text_that_can_be_typed() {
        for password in ["a", "two words", "päss", "p\u{A0}w"] {
            assert_eq!(check(password.as_bytes()), Ok(()));
        }
        for (password, why) in [
            (&b""[..], "is empty"),
            (b"a\x1b[D", "control"),
            (b"a\0", "control"),
            (b"a\xff", "UTF-8"),
        ] {
            assert!(check(password).unwrap_err().contains(why));
        }
    }

    #[test]
    fn keys_correct_what_was_typed() {
        for (keys, password) in [
            ("secret\n", "secret"),
            ("sex\u{7f}cret\r", "secret"),
            ("sä\u{8}ecret\n", "secret"),
            ("wrong\u{15}secret\n", "secret"),
            ("\u{7f}secret\u{4}", "secret"),
            ("\n", ""),
        ] {
            let typed = typed_line(&mut keys.as_bytes()).unwrap();
            assert_eq!(typed, password.as_bytes(), "{keys:?}");
        }
        for (keys, why) in [("sec\u{3}ret\n", "interrupted"), ("sec", "closed")] {
            let error = typed_line(&mut keys.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{keys:?}: {error}");
        }
        let long = "a".repeat(1001) + "\n";
        assert!(typed_line(&mut long.as_bytes()).is_err());
    }
}
