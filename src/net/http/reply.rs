//! The head of a response that gt itself gives. Not those of shared folders, which keep their
//! connections open.

/// Returns the head of a response after which the connection closes. `status` is the status line
/// without its version, and `fields` are whole lines; without a `length` the body, if there is one,
/// is chunked or ends with the connection.
pub fn head(status: &str, fields: &str, length: Option<usize>) -> String {
    let length = length.map_or_else(String::new, |n| format!("Content-Length: {n}\r\n"));
    format!("HTTP/1.1 {status}\r\n{fields}{length}Connection: close\r\n\r\n")
}
