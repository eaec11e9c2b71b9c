//! The stub of `pages` for builds without the web page.

use super::Told;

/// Returns nothing: there are no pages.
pub fn ask(_: u32) -> Result<Told, String> {
    Ok(Told::Nothing)
}

/// Returns nothing: there are no pages.
pub fn ask_json(_: u32) -> Result<Told, String> {
    Ok(Told::Nothing)
}
