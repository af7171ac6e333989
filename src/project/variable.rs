//! The names of the variables that carry ports.

/// A service's name as the beginning of a variable's name: in capitals, with `_` for what a name
/// cannot have (POSIX.1-2017 XBD 3.235).
pub fn variable_of(name: &str) -> String {
    let mut variable = String::with_capacity(name.len() + 1);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        variable.push('_');
    }
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    variable.extend(name.chars().map(allowed));
    variable
}

/// The variable of a service that names none: `WEB_PORT` for `web`.
pub fn port_variable_of(name: &str) -> String {
    variable_of(name) + "_PORT"
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
            assert_eq!(variable_of(name), expected);
        }
        assert_eq!(port_variable_of("web"), "WEB_PORT");
    }
}
