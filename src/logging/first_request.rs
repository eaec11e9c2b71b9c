//! What the log of visitors tells of a connection whose requests are read.

use crate::sync::Mutex;

/// Maximum length in bytes of a method or a target in the log.
const MAX_PART: usize = 1024;

/// The first request of a connection whose requests are read, and the status of its response.
#[derive(Debug, Default)]
pub struct FirstRequest(Mutex<(String, Option<u16>)>);

impl FirstRequest {
    /// Records a request line, if it is the first.
    pub fn request(&self, method: &[u8], target: &[u8]) {
        let mut first = self.0.lock();
        if first.0.is_empty() {
            let (method, target) = (text(method), text(target));
            first.0 = format!("{method} {target}");
        }
    }

    /// Returns the method and the target, and the status.
    pub fn told(&self) -> (String, Option<u16>) {
        self.0.lock().clone()
    }

    /// Records the status of a response, if it is the first.
    pub fn status(&self, status: u16) {
        self.0.lock().1.get_or_insert(status);
    }
}

/// Returns a part that a visitor has chosen, as text of bounded length.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MAX_PART).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}
