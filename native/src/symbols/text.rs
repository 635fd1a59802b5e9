//! Bytes of traced systems as text.

use std::borrow::Cow;
use std::fmt::Write;

/// Decodes UTF-8; invalid bytes become `\xNN`.  Control characters stay: each view escapes
/// them for its medium.
pub fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn valid_text_is_borrowed_unchanged() {
        let text = "Ünï\x1b[31m\n\u{202e}code\0";
        assert!(matches!(
            decode(text.as_bytes()),
            std::borrow::Cow::Borrowed(same) if same == text
        ));
    }

    #[test]
    fn invalid_bytes_become_escapes() {
        assert_eq!(decode(b"a\xff\xfeb"), "a\\xff\\xfeb");
        assert_eq!(decode(b"cut \xe2\x82"), "cut \\xe2\\x82");
        assert_eq!(decode(b"\xed\xa0\x80"), "\\xed\\xa0\\x80");
        assert_eq!(decode(b""), "");
    }
}
