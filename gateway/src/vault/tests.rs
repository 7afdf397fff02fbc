//! Sealing: what opens, and everything that must not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::upstream::Secret;

const CANARY: &str = "sk-canary-of-the-vault";

fn pair(id: &str, letter: char) -> (String, Secret) {
    (id.to_owned(), Secret::new(letter.to_string().repeat(32)))
}

fn ring(keys: &[(&str, char)]) -> KeyRing {
    let keys = keys.iter().map(|(id, letter)| pair(id, *letter)).collect();
    KeyRing::new(keys).expect("the keys are right")
}

const HERE: Place<'static> = Place {
    kind: "provider",
    name: "openai",
    field: "keys/main/value",
};

#[test]
fn keys_are_judged() {
    let short = (String::from("k1"), Secret::new("x".repeat(31)));
    assert_eq!(
        KeyRing::new(vec![short]).map(|_| ()),
        Err(KeyRingError::Short {
            id: "k1".to_owned()
        })
    );
    assert_eq!(
        KeyRing::new(vec![pair("k1", 'a'), pair("k1", 'b')]).map(|_| ()),
        Err(KeyRingError::Twice {
            id: "k1".to_owned()
        })
    );
    let none = KeyRing::new(Vec::new()).expect("no keys are no mistake");
    assert!(none.is_empty() && none.audit_key().is_none());
    assert_eq!(none.seal(CANARY, &HERE), Err(SealError::NoKey));
}

#[test]
fn each_purpose_has_a_key_of_its_own() {
    let ring = ring(&[("k1", 'a'), ("k2", 'b')]);
    let keys = [
        ring.sealing().expect("there is one").expose(),
        ring.opening("k2").expect("there is one").expose(),
        ring.audit_key().expect("there is one").expose(),
        ring.audit_keys()[1].expose(),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key) && **key != [b'a'; 32]);
    }
    assert_eq!(ring.audit_key().map(WorkingKey::id), Some("k1"));
    let again = super::tests::ring(&[("k1", 'a')]);
    assert_eq!(
        again.audit_key().map(WorkingKey::expose),
        ring.audit_key().map(WorkingKey::expose),
        "all nodes derive the same"
    );
}

/// HKDF-SHA256 by RFC 5869 of 32 times `a`, without salt: computed elsewhere.
#[test]
fn working_keys_stay_what_they_are() {
    let ring = ring(&[("k1", 'a')]);
    let sealing = ring.sealing().map(|key| hex::encode(key.expose()));
    let auditing = ring.audit_key().map(|key| hex::encode(key.expose()));
    assert_eq!(sealing.as_deref(), Some(SEALING_OF_A));
    assert_eq!(auditing.as_deref(), Some(AUDITING_OF_A));
}

const SEALING_OF_A: &str = "fceceec6aa87014c37d116a003953d8f7790518f9f2635aa0089a30aa4f6563a";
const AUDITING_OF_A: &str = "f0225ac64883ebf42e751c5dccaa1b7fe9e1e97446053ebc4eb16e211fc00957";

#[test]
fn what_is_sealed_opens_in_its_cell_only() {
    let ring = ring(&[("k1", 'a'), ("k2", 'b')]);
    let sealed = ring.seal(CANARY, &HERE).expect("there is a key");
    assert!(is_sealed(&sealed) && key_id(&sealed) == Some("k1"));
    assert!(!sealed.contains(CANARY));
    assert_eq!(
        ring.open(&sealed, &HERE).expect("it is ours").expose(),
        CANARY
    );
    let tampered = OpenError::Tampered {
        id: "k1".to_owned(),
    };
    let elsewhere = [
        Place {
            kind: "model",
            ..HERE
        },
        Place {
            name: "anthropic",
            ..HERE
        },
        Place {
            field: "keys/other/value",
            ..HERE
        },
        Place {
            kind: "providero",
            name: "penai",
            ..HERE
        },
    ];
    for place in elsewhere {
        let opened = ring.open(&sealed, &place);
        assert_eq!(opened.map(|_| ()), Err(tampered.clone()), "{place:?}");
    }
}

#[test]
fn keys_are_found_by_their_id() {
    let old = ring(&[("k1", 'a')]);
    let sealed = old.seal(CANARY, &HERE).expect("there is a key");
    let both = ring(&[("k2", 'b'), ("k1", 'a')]);
    assert!(both.open(&sealed, &HERE).is_ok(), "all keys open");
    let newer = both.seal(CANARY, &HERE).expect("there is a key");
    assert_eq!(key_id(&newer), Some("k2"), "the first key seals");
    let unknown = OpenError::UnknownKey {
        id: "k2".to_owned(),
    };
    assert_eq!(old.open(&newer, &HERE).map(|_| ()), Err(unknown));
    // The same id with another secret, and the same secret under another id.
    let other = ring(&[("k1", 'z'), ("k3", 'a')]);
    let tampered = |id: &str| Err(OpenError::Tampered { id: id.to_owned() });
    assert_eq!(other.open(&sealed, &HERE).map(|_| ()), tampered("k1"));
    let renamed = sealed.replace(":k1:", ":k3:");
    assert_eq!(other.open(&renamed, &HERE).map(|_| ()), tampered("k3"));
}

#[test]
fn ids_may_hold_colons() {
    let ring = ring(&[("a:b", 'a')]);
    let sealed = ring.seal(CANARY, &HERE).expect("there is a key");
    assert_eq!(key_id(&sealed), Some("a:b"));
    assert!(ring.open(&sealed, &HERE).is_ok());
}

#[test]
fn other_texts_are_malformed() {
    let ring = ring(&[("k1", 'a')]);
    let texts = [
        "",
        "sealed:v1:",
        "sealed:v1:k1",
        "sealed:v1::AAAA",
        "sealed:v1:k1:",
        "sealed:v1:k1:AAAA",
        "sealed:v1:k1:not base64",
        "sealed:v2:k1:AAAA",
        CANARY,
    ];
    for text in texts {
        let opened = ring.open(text, &HERE).map(|_| ());
        assert_eq!(opened, Err(OpenError::Malformed), "{text}");
    }
}

fn provider() -> Value {
    json!({"name": "openai", "keys": [
        {"name": "main", "value": CANARY},
        {"name": "spare", "value": "sk-second"},
    ]})
}

#[test]
fn a_body_is_sealed_opened_and_masked() {
    let ring = ring(&[("k1", 'a')]);
    let mut body = provider();
    ring.seal_body("provider", "openai", &mut body)
        .expect("there is a key");
    assert!(!body.to_string().contains("sk-"), "{body}");
    let once = body.clone();
    ring.seal_body("provider", "openai", &mut body)
        .expect("again");
    assert_eq!(body, once, "what is sealed for this cell stays");
    let mut shown = body.clone();
    mask_body("provider", &mut shown);
    assert_eq!(shown["keys"][1], json!({"name": "spare", "value": "***"}));
    ring.open_body("provider", "openai", &mut body)
        .expect("it is ours");
    assert_eq!(body, provider());
}

#[test]
fn a_cell_of_another_row_is_refused() {
    let ring = ring(&[("k1", 'a')]);
    let mut body = provider();
    ring.seal_body("provider", "openai", &mut body)
        .expect("there is a key");
    let mut swapped = body.clone();
    let first = swapped["keys"][0]["value"].take();
    swapped["keys"][0]["value"] = swapped["keys"][1]["value"].take();
    swapped["keys"][1]["value"] = first;
    let error = ring.open_body("provider", "openai", &mut swapped.clone());
    let text = error.expect_err("the cells are swapped").to_string();
    assert!(
        text.starts_with("provider 'openai', keys/main/value: it was altered"),
        "{text}"
    );
    let error = ring.seal_body("provider", "openai", &mut swapped);
    assert!(matches!(
        error,
        Err(BodyError::Seal { source: SealError::Foreign, cell }) if cell.pointer == "/keys/0/value"
    ));
    let error = ring.open_body("provider", "azure", &mut body);
    assert!(matches!(
        error,
        Err(BodyError::Open {
            source: OpenError::Tampered { .. },
            ..
        })
    ));
}

#[test]
fn bodies_move_to_the_first_key() {
    let old = ring(&[("k1", 'a')]);
    let both = ring(&[("k2", 'b'), ("k1", 'a')]);
    let new = ring(&[("k2", 'b')]);
    let mut body = provider();
    old.seal_body("provider", "openai", &mut body)
        .expect("there is a key");
    assert_eq!(key_ids("provider", &body), ["k1".to_owned()].into());
    let missing = new.reseal_body("provider", "openai", &mut body.clone());
    let text = missing.expect_err("k1 is missing").to_string();
    assert_eq!(
        text,
        "provider 'openai', keys/main/value: it is sealed with encryption key 'k1', \
         which is not configured"
    );
    assert_eq!(both.reseal_body("provider", "openai", &mut body), Ok(true));
    assert_eq!(both.reseal_body("provider", "openai", &mut body), Ok(false));
    assert_eq!(key_ids("provider", &body), ["k2".to_owned()].into());
    new.open_body("provider", "openai", &mut body)
        .expect("k2 is enough");
    assert_eq!(body, provider());
    assert_eq!(
        new.reseal_body("provider", "openai", &mut body),
        Ok(true),
        "in the clear"
    );
}

#[test]
fn masks_hide_values_and_hashes_but_not_references() {
    let hash = "ab".repeat(32);
    let cases = [
        (
            "virtual_key",
            json!({"name": "k", "value": "sk-x"}),
            json!({"name": "k", "value": "***"}),
        ),
        (
            "virtual_key",
            json!({"sha256": hash, "retiring": [{"sha256": hash, "until": 1}]}),
            json!({"sha256": "***", "retiring": [{"sha256": "***", "until": 1}]}),
        ),
        (
            "admin_token",
            json!({"sha256": hash, "role": "viewer"}),
            json!({"sha256": "***", "role": "viewer"}),
        ),
        (
            "provider",
            json!({"keys": [{"value": "env.KEY"}]}),
            json!({"keys": [{"value": "env.KEY"}]}),
        ),
        (
            "provider",
            json!({"keys": [{"value": 17}, {"value": null}]}),
            json!({"keys": [{"value": "***"}, {"value": null}]}),
        ),
        (
            "customer",
            json!({"name": "value"}),
            json!({"name": "value"}),
        ),
        ("provider", json!("keys"), json!("keys")),
    ];
    for (kind, mut body, expected) in cases {
        mask_body(kind, &mut body);
        assert_eq!(body, expected, "{kind}");
    }
}

#[test]
fn stars_keep_what_is_stored() {
    let stored = provider();
    let mut body = json!({"name": "openai", "keys": [
        {"name": "spare", "value": "***"},
        {"name": "main", "value": "sk-new"},
    ]});
    keep_unchanged("provider", &mut body, &stored).expect("spare is stored");
    assert_eq!(body["keys"][0]["value"], "sk-second");
    assert_eq!(body["keys"][1]["value"], "sk-new");
    let mut body = json!({"keys": [{"name": "third", "value": "***"}]});
    let unkept = keep_unchanged("provider", &mut body, &stored).expect_err("third is new");
    assert_eq!(unkept[0].pointer, "/keys/0/value");
}

#[test]
fn debug_shows_no_key() {
    let ring = ring(&[("k1", 'a')]);
    let shown = format!("{ring:?} {ring:#?} {:?}", ring.audit_key());
    assert!(shown.contains("k1") && !shown.contains("aaaa"));
    let bytes = format!("{:?}", &ring.sealing().expect("there is one").expose()[..4]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
}

proptest! {
    #[test]
    fn any_text_comes_back(plain in "\\PC*", kind in "[a-z_]{1,12}", name in "[!-~]{1,40}", field in "[ -~]{0,60}") {
        let ring = ring(&[("k1", 'a')]);
        let place = Place { kind: &kind, name: &name, field: &field };
        let sealed = ring.seal(&plain, &place).expect("there is a key");
        let opened = ring.open(&sealed, &place).expect("it is ours");
        prop_assert_eq!(opened.expose(), plain.as_str());
        prop_assert_ne!(ring.seal(&plain, &place).expect("there is a key"), sealed);
    }

    /// One bit anywhere in nonce, ciphertext or tag.
    #[test]
    fn an_altered_value_never_opens(plain in "[ -~]{0,64}", at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let ring = ring(&[("k1", 'a')]);
        let sealed = ring.seal(&plain, &HERE).expect("there is a key");
        let (head, payload) = sealed.rsplit_once(':').expect("it has parts");
        let mut bytes = URL_SAFE_NO_PAD.decode(payload).expect("it is base64");
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let altered = format!("{head}:{}", URL_SAFE_NO_PAD.encode(bytes));
        let opened = ring.open(&altered, &HERE).map(|_| ());
        prop_assert_eq!(opened, Err(OpenError::Tampered { id: "k1".to_owned() }));
    }

    #[test]
    fn no_text_makes_opening_panic(text in "(sealed:v1:)?(k1:)?\\PC{0,200}") {
        let ring = ring(&[("k1", 'a')]);
        prop_assert!(ring.open(&text, &HERE).is_err());
    }
}
