//! The search for a secret in bytes, whatever form it has there.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The text, in every form in which it may stand somewhere by accident.
fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hexadecimal = hex::encode(secret);
    let mut forms = vec![
        ("plain", secret.as_bytes().to_vec()),
        ("hex", hexadecimal.clone().into_bytes()),
        ("HEX", hexadecimal.to_uppercase().into_bytes()),
    ];
    // In a longer text it begins at any of three places of a group.
    for skip in 0..3 {
        let Some(rest) = secret.as_bytes().get(skip..) else {
            continue;
        };
        let whole = &rest[..rest.len() - rest.len() % 3];
        forms.push(("base64", STANDARD_NO_PAD.encode(whole).into_bytes()));
        forms.push(("base64url", URL_SAFE_NO_PAD.encode(whole).into_bytes()));
    }
    forms
}

/// Where any of `secrets` stands in `bytes`.
pub(super) fn hits(place: &str, bytes: &[u8], secrets: &[String], found: &mut Vec<String>) {
    for secret in secrets {
        for (form, needle) in forms(secret) {
            let at = memchr::memmem::find(bytes, &needle);
            if let Some(at) = at {
                let start = at.saturating_sub(60);
                let around = String::from_utf8_lossy(&bytes[start..at]).into_owned();
                found.push(format!(
                    "{secret} ({form}) in {place} at {at}, after {around:?}"
                ));
            }
        }
    }
}

/// Every file below a folder but the configuration, which refers to secrets
/// and holds the cluster's.
pub(super) fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("it has a type");
        if kind.is_dir() {
            files(&path, found);
        } else if kind.is_file() && !path.ends_with("tyr.yaml") {
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path.display().to_string(), bytes));
        }
    }
}
