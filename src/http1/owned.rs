//! Names that are not the client's to say, in whatever spelling.
//!
//! CGI, WSGI and their kin know fields by names in which `-`, `_` and what is no letter are one, so
//! `X_User_Group` is `X-User-Group` to the server and another field to a gateway. What folds to a
//! name that is ours to say, to guard or to go by is therefore taken for an attempt at it.

use super::known::Known;

/// Names that a configuration sets, removes, guards or goes by, beside those of [`Known`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// In lower case, as they are configured; sorted.
    spelled: Vec<Box<[u8]>>,
    /// As servers fold them; sorted.
    folded: Vec<Box<[u8]>>,
}

impl Owned {
    /// A list of `names`.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spelled: Vec<Box<[u8]>> =
            names.into_iter().map(|name| name.to_ascii_lowercase().into_bytes().into()).collect();
        let mut folded: Vec<Box<[u8]>> = spelled.iter().map(|name| folded(name).into()).collect();
        for list in [&mut spelled, &mut folded] {
            list.sort_unstable();
            list.dedup();
        }
        Self { spelled, folded }
    }

    /// Whether `name` is, in any spelling, one of them or one that the gateway itself acts on: then
    /// it has no place among a message's trailers.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.has_folded(&folded(name))
    }

    /// Whether `name` is a further spelling of such a name: then it has no place in a head. One that
    /// is configured as it is spelled is none.
    #[must_use]
    #[cold]
    pub fn is_disguise(&self, name: &[u8]) -> bool {
        let lower = name.to_ascii_lowercase();
        let folded = folded(&lower);
        let is_configured = || self.spelled.binary_search_by(|one| (**one).cmp(&lower)).is_ok();
        folded != lower
            && (Known::named(&folded) != Known::Other
                || (self.has_folded(&folded) && !is_configured()))
    }

    /// What names that are configured in a spelling of their own fold to (`x-group` of `x_group`),
    /// so that the plain spelling can be removed.
    pub fn plain(&self) -> impl Iterator<Item = &str> {
        let folded = self.folded.iter().filter(|name| self.spelled.binary_search(name).is_err());
        // Names of fields are ASCII.
        folded.filter_map(|name| std::str::from_utf8(name).ok())
    }

    fn has_folded(&self, folded: &[u8]) -> bool {
        Known::named(folded) != Known::Other
            || self.folded.binary_search_by(|name| (**name).cmp(folded)).is_ok()
    }
}

/// `name` as CGI sees it, but for its own case and `_`: lower case, and `-` for what is neither a
/// letter nor a digit.
pub(super) fn folded(name: &[u8]) -> Vec<u8> {
    let fold =
        |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.iter().map(fold).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_spellings_are_disguises_unless_they_are_configured() {
        let owned = Owned::new(["X-User-Group", "x_tenant", "both_ways", "both-ways"]);
        for (name, is_disguise, has) in [
            ("x-user-group", false, true),
            ("x_user_group", true, true),
            ("X-User_Group", true, true),
            ("X.User!Group", true, true),
            ("x_user_groups", false, false),
            ("x_tenant", false, true),
            ("X_TENANT", false, true),
            ("x.tenant", true, true),
            ("x-tenant", false, true),
            ("both_ways", false, true),
            ("x_forwarded_for", true, true),
            ("X_Forwarded-Proto", true, true),
            ("x_real_ip", true, true),
            ("x_forwarded_anything", true, true),
            ("X-Client_Certificate-Subject", true, true),
            ("content_length", true, true),
            ("transfer_encoding", true, true),
            ("keep_alive", true, true),
            ("proxy", false, true),
            ("host", false, true),
            ("user_agent", false, false),
            ("x_request_id", false, false),
            ("_", false, false),
        ] {
            assert_eq!(owned.is_disguise(name.as_bytes()), is_disguise, "{name}");
            assert_eq!(owned.has(name.as_bytes()), has, "{name}");
        }
        assert_eq!(owned.plain().collect::<Vec<_>>(), ["x-tenant"]);
        assert!(Owned::new(["x_forwarded_for"]).is_disguise(b"x_forwarded_for"));
    }

    proptest! {
        #[test]
        fn every_spelling_of_a_name_is_one_name(
            name in "[a-z][a-z0-9_.-]{0,30}",
            marks in proptest::collection::vec(prop::sample::select(b"-_.!~|".to_vec()), 31),
            upper in any::<u32>(),
        ) {
            let owned = Owned::new([&*name]);
            let other: Vec<u8> = name
                .bytes()
                .enumerate()
                .map(|(at, byte)| match byte {
                    byte if !byte.is_ascii_alphanumeric() => marks[at],
                    byte if upper >> at & 1 == 1 => byte.to_ascii_uppercase(),
                    byte => byte,
                })
                .collect();
            prop_assert!(owned.has(&other));
            let is_plain = other.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
            let is_itself = other.eq_ignore_ascii_case(name.as_bytes());
            if !is_plain && !is_itself {
                prop_assert!(owned.is_disguise(&other));
            }
        }
    }
}
