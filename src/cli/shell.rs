//! Text that a POSIX shell evaluates.

/// A service's name as the beginning of a variable's name: in capitals, with `_` for what a name
/// cannot have (POSIX.1-2017 XBD 3.235).
pub(super) fn variable(name: &str) -> String {
    let mut variable = String::with_capacity(name.len() + 1);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        variable.push('_');
    }
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    variable.extend(name.chars().map(allowed));
    variable
}

/// A text as one word that means itself.
pub(super) fn quote(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_variable_that_a_shell_takes() {
        let table = [
            ("web", "WEB"),
            ("main-app", "MAIN_APP"),
            ("@shop/api.v2", "_SHOP_API_V2"),
            ("3d", "_3D"),
            ("über", "_BER"),
            ("a b;rm -rf", "A_B_RM__RF"),
        ];
        for (name, expected) in table {
            assert_eq!(variable(name), expected);
        }
    }

    #[test]
    fn a_quoted_text_means_itself_to_sh() {
        for text in ["3000", "", "a b", "it's", "$(touch /tmp/x)", "`id`", "\\", "a\nb", "*"] {
            let script = format!("printf %s {}", quote(text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output();
            let output = output.expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{script}");
        }
    }
}
