//! The version of this program.

/// What `-version` prints: `gt`, the release, and the commit and date of the build.
pub const VERSION: &str = env!("GT_VERSION");
