//! The arguments of a program, as text.

use crate::symbols::decode;

/// From words that each end with a NUL (the last may be cut) to one line, quoted as for a shell; None
/// when there are none.
pub fn quote(arguments: &[u8]) -> Option<String> {
    let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    if arguments.is_empty() {
        return None;
    }
    let quoted: Vec<String> = arguments.split(|&b| b == 0).map(|word| quote_word(&decode(word))).collect();
    Some(quoted.join(" "))
}

fn quote_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted() {
        assert_eq!(quote(b"sh\0-c\0a b'c\0\0").as_deref(), Some(r"sh -c 'a b'\''c' ''"));
        assert_eq!(quote(b"--x=1").as_deref(), Some("--x=1"));
        assert_eq!(quote(b""), None);
    }
}
