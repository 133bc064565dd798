//! What is told upstream of a client's certificate: subject, fingerprint and names, each so that
//! nothing in it can be mistaken for something else.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

/// Most bytes of all that is told of one certificate: more than any head of a server takes.
const BYTES_MAX: usize = 16 * 1024;

/// Attributes with a keyword: those of RFC 4514 §3, and two more that LDAP has registered.
const KEYWORDS: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The field lines that tell of a certificate in DER; `None` for one that cannot be told of, because
/// it is malformed or beyond every measure.
#[must_use]
pub fn lines(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut lines = String::from("x-client-certificate-subject: ");
    subject(&mut lines, parsed.subject());
    lines.push_str("\r\nx-client-certificate-fingerprint: ");
    hex(&mut lines, digest(&SHA256, certificate).as_ref());
    lines.push_str("\r\n");
    let names = parsed.subject_alternative_name().ok()?;
    let names = names.map(|names| alternatives(&names.value.general_names)).unwrap_or_default();
    if !names.is_empty() {
        for part in ["x-client-certificate-sans: ", &names, "\r\n"] {
            lines.push_str(part);
        }
    }
    (lines.len() <= BYTES_MAX).then_some(lines)
}

/// A name as RFC 4514 writes it: the last of its parts first, in ASCII.
fn subject(out: &mut String, name: &X509Name<'_>) {
    let parts: Vec<_> = name.iter().collect();
    for (position, part) in parts.into_iter().rev().enumerate() {
        if position > 0 {
            out.push(',');
        }
        relative(out, part);
    }
}

fn relative(out: &mut String, part: &RelativeDistinguishedName<'_>) {
    for (position, attribute) in part.iter().enumerate() {
        if position > 0 {
            out.push('+');
        }
        let kind = attribute.attr_type().to_id_string();
        let keyword = KEYWORDS.iter().find(|(id, _)| *id == kind).map(|(_, keyword)| *keyword);
        out.push_str(keyword.unwrap_or(&kind));
        out.push('=');
        match keyword.and_then(|_| text(attribute)) {
            Some(text) => escape(out, text.as_bytes(), b"\"+,;<>\\"),
            None => encoded(out, attribute),
        }
    }
}

/// The text of an attribute, where its kind has one that is certain.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    let is_ascii = value.data.is_ascii();
    match value.tag().0 {
        // UTF8String
        12 => std::str::from_utf8(value.data).ok().map(str::to_owned),
        // NumericString, PrintableString, IA5String, VisibleString
        18 | 19 | 22 | 26 if is_ascii => std::str::from_utf8(value.data).ok().map(str::to_owned),
        // BMPString
        30 => {
            let (units, rest) = value.data.as_chunks();
            let units = units.iter().map(|unit| u16::from_be_bytes(*unit));
            let text = char::decode_utf16(units).collect::<Result<_, _>>().ok();
            text.filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// A value without a certain text: `#` and its encoding in hexadecimal.
fn encoded(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let value = attribute.attr_value();
    out.push('#');
    // Kinds of values are few; those beyond one byte do not come in names.
    hex(out, &[u8::try_from(value.tag().0).unwrap_or(u8::MAX)]);
    if let Ok(short @ 0..0x80) = u8::try_from(value.data.len()) {
        hex(out, &[short]);
    } else {
        let length = value.data.len().to_be_bytes();
        let first = length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1);
        let length = &length[first..];
        hex(out, &[0x80 | u8::try_from(length.len()).unwrap_or(8)]);
        hex(out, length);
    }
    hex(out, value.data);
}

/// The URIs and DNS names: `URI:spiffe://a/b,DNS:c.example`.
fn alternatives(names: &[GeneralName<'_>]) -> String {
    let mut out = String::new();
    for name in names {
        let (kind, bytes) = match name {
            GeneralName::URI(uri) => ("URI:", uri.as_bytes()),
            GeneralName::DNSName(name) => ("DNS:", name.as_bytes()),
            // Not UTF-8, which does not make it vanish.
            GeneralName::Invalid(tag, bytes) if tag.0 == 6 => ("URI:", *bytes),
            GeneralName::Invalid(tag, bytes) if tag.0 == 2 => ("DNS:", *bytes),
            _ => continue,
        };
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(kind);
        escape(&mut out, bytes, b",\\");
    }
    out
}

/// Appends `bytes` in visible ASCII: a backslash before each of `special`, and two hexadecimal digits
/// behind one for what is no visible ASCII. A space, or `#` ahead, is escaped where a reader would
/// lose or misread it.
fn escape(out: &mut String, bytes: &[u8], special: &[u8]) {
    let last = bytes.len().wrapping_sub(1);
    for (position, &byte) in bytes.iter().enumerate() {
        let is_edge = position == 0 || position == last;
        match byte {
            _ if special.contains(&byte) => out.extend(['\\', char::from(byte)]),
            b'#' if position == 0 => out.push_str("\\#"),
            b' ' if is_edge => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                hex(out, &[byte]);
            }
        }
    }
}

fn hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a String takes every write");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::string::{BmpString, PrintableString, TeletexString};
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn told(attributes: &[(DnType, DnValue)], names: Vec<SanType>) -> Vec<String> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.subject_alt_names = names;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let lines = lines(certificate.der()).unwrap();
        assert!(lines.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')), "{lines}");
        lines.split_terminator("\r\n").map(str::to_owned).collect()
    }

    fn common_name(value: &str) -> String {
        let told = told(&[(DnType::CommonName, DnValue::from(value))], Vec::new());
        told[0].strip_prefix("x-client-certificate-subject: ").unwrap().to_owned()
    }

    #[test]
    fn subjects_cannot_be_forged() {
        for (name, expected) in [
            ("admin", "CN=admin"),
            ("admin\u{436}", "CN=admin\\d0\\b6"),
            ("\u{430}dmin", "CN=\\d0\\b0dmin"),
            ("adm\u{7f}in", "CN=adm\\7fin"),
            ("adm\0in", "CN=adm\\00in"),
            ("a\r\nx: y", "CN=a\\0d\\0ax: y"),
            ("alice,CN=admin", "CN=alice\\,CN=admin"),
            ("alice+CN=admin", "CN=alice\\+CN=admin"),
            ("a\"b;c<d>e\\f", "CN=a\\\"b\\;c\\<d\\>e\\\\f"),
            (" a b ", "CN=\\ a b\\ "),
            ("#a#", "CN=\\#a#"),
            ("admin\u{200b}", "CN=admin\\e2\\80\\8b"),
        ] {
            assert_eq!(common_name(name), expected);
        }
    }

    #[test]
    fn parts_stand_in_the_order_of_rfc_4514_and_other_kinds_in_hexadecimal() {
        let told = told(
            &[
                (
                    DnType::CountryName,
                    DnValue::PrintableString(PrintableString::try_from("DE").unwrap()),
                ),
                (DnType::OrganizationName, DnValue::from("a, b")),
                (DnType::CommonName, DnValue::BmpString(BmpString::try_from("\u{fc}").unwrap())),
                (
                    DnType::LocalityName,
                    DnValue::TeletexString(TeletexString::try_from("x").unwrap()),
                ),
                (DnType::CustomDnType(vec![1, 2, 3]), DnValue::from("y")),
            ],
            Vec::new(),
        );
        let expected =
            "x-client-certificate-subject: 1.2.3=#0c0179,L=#140178,CN=\\c3\\bc,O=a\\, b,C=DE";
        assert_eq!(told[0], expected);
    }

    #[test]
    fn fingerprint_and_names_stand_beside() {
        let names = ["spiffe://a/b,DNS:c", "https://x/?a=b;c"];
        let names = names.map(|uri| SanType::URI(uri.try_into().unwrap()));
        let dns = SanType::DnsName("c.example".try_into().unwrap());
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let names = names.into_iter().chain([dns, address]).collect();
        let told = told(&[(DnType::CommonName, DnValue::from("a"))], names);
        assert_eq!(
            told[2],
            "x-client-certificate-sans: URI:spiffe://a/b\\,DNS:c,URI:https://x/?a=b;c,DNS:c.example"
        );
        let fingerprint = told[1].strip_prefix("x-client-certificate-fingerprint: ").unwrap();
        assert!(
            fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit())
        );
    }

    #[test]
    fn what_cannot_be_told_of_is_not() {
        assert_eq!(lines(b"nothing"), None);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "x".repeat(BYTES_MAX));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(lines(certificate.der()), None);
    }

    proptest! {
        #[test]
        fn different_values_are_told_differently(one in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
            let told = |bytes: &[u8]| {
                let mut out = String::new();
                escape(&mut out, bytes, b"\"+,;<>\\");
                out
            };
            prop_assert_eq!(told(&one) == told(&other), one == other);
        }
    }
}
