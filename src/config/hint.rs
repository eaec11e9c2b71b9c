//! A guess at the name that was meant by an unknown one.

/// Returns the one of `names` that differs from `wrong` only in case and dashes.
pub fn did_you_mean<'n>(wrong: &str, mut names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
    let wrong = plain(wrong);
    names.find(|name| plain(name) == wrong)
}
