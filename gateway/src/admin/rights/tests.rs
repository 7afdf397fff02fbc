use proptest::prelude::*;

use super::*;

fn any_rights() -> impl Strategy<Value = Rights> {
    any::<u128>().prop_map(|bits| Rights(bits).intersection(Rights::ALL))
}

#[test]
fn texts_name_rights() {
    let read_keys = Rights::one(Resource::VirtualKeys, Operation::Read);
    assert_eq!(Rights::parse("virtual-keys:read"), Ok(read_keys));
    assert_eq!(Rights::parse("*:*"), Ok(Rights::ALL));
    assert_eq!(Rights::parse("usage:*").expect("a right").texts().len(), 5);
    assert_eq!(Rights::parse("*:read").expect("a right").texts().len(), 17);
    for wrong in [
        "",
        ":",
        "usage",
        "usage:",
        "usage:look",
        "keys:read",
        "usage:read:x",
        "*",
    ] {
        assert!(Rights::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn roles_that_every_node_knows() {
    let role = |name| Rights::built_in(name).expect("a known role");
    let (admin, operator, viewer) = (role("admin"), role("operator"), role("viewer"));
    assert!(viewer.is_within(operator) && operator.is_within(admin));
    assert_eq!(admin.texts().len(), 17 * 5);
    for resource in Resource::ALL {
        assert!(viewer.contains(resource, Operation::Read));
        for operation in [Operation::Create, Operation::Update, Operation::Delete] {
            assert!(!viewer.contains(resource, operation));
        }
        let runs = viewer.contains(resource, Operation::Run);
        assert_eq!(runs, resource == Resource::Explain, "{resource:?}");
    }
    for resource in [Resource::AdminTokens, Resource::Roles, Resource::Providers] {
        assert!(!operator.contains(resource, Operation::Create));
        assert!(!operator.contains(resource, Operation::Update));
    }
    assert!(operator.contains(Resource::VirtualKeys, Operation::Create));
    assert_eq!(Rights::built_in("root"), None);
}

proptest! {
    #[test]
    fn texts_read_back(rights in any_rights()) {
        let short = rights.short_texts();
        prop_assert_eq!(Rights::parse_all(short.iter().map(String::as_str)), Ok(rights));
        prop_assert!(short.len() <= rights.texts().len());
        let texts = rights.texts();
        let back = Rights::parse_all(texts.iter().map(String::as_str));
        prop_assert_eq!(back, Ok(rights));
    }

    #[test]
    fn sets_behave(a in any_rights(), b in any_rights()) {
        prop_assert!(a.intersection(b).is_within(a) && a.intersection(b).is_within(b));
        prop_assert!(a.is_within(a.union(b)));
        prop_assert_eq!(a.is_within(b), a.beyond(b) == Rights::NONE);
        for resource in Resource::ALL {
            for operation in Operation::ALL {
                let both = a.contains(resource, operation) && b.contains(resource, operation);
                prop_assert_eq!(a.intersection(b).contains(resource, operation), both);
            }
        }
    }
}
