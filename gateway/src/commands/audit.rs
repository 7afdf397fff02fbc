//! `tyr audit verify --conf PATH`.

use std::path::Path;
use std::process::ExitCode;

use cluster::audit::{AuditKey, VerifyError};

use super::{CommandError, Opened, conclude, open};

/// Walks the chain of the audit log and says whether it is whole.
pub fn verify_audit(conf: &Path) -> ExitCode {
    conclude(open(conf, |config| config).and_then(|opened| verified(&opened)))
}

fn verified(opened: &Opened) -> Result<String, CommandError> {
    let keys = opened.ring.audit_keys().iter();
    let keys: Vec<AuditKey> = keys
        .map(|key| AuditKey::from_secret(key.id(), key.expose()))
        .collect();
    let verified = match opened.store.verify_audit(&keys) {
        Ok(verified) => verified,
        Err(VerifyError::Store(error)) => return Err(error.into()),
        Err(VerifyError::Broken(broken)) => {
            return Err(CommandError::Found(format!(
                "the audit log is broken: {broken}"
            )));
        }
    };
    let mut text = format!(
        "the audit log is whole: {} rows, head {} {}\n",
        verified.rows,
        verified.rows,
        hex::encode(verified.head)
    );
    if verified.keyless > 0 {
        text.push_str(&format!(
            "rows 1 to {} were written without a key: they show accidents, not intent\n",
            verified.keyless
        ));
    }
    Ok(text)
}
