//! The stub of `forwards` for builds without clients.

use super::Told;

/// Returns nothing: there are no clients.
pub fn ask(_: u32) -> Result<Told, String> {
    Ok(Told::Nothing)
}
