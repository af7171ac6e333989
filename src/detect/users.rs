//! What users are called.

use crate::text::printable;

/// A user by name, where it is known, and number, as people read it.
pub fn describe(uid: u32) -> String {
    match name_of(uid) {
        Some(name) => format!("{}, uid {uid}", printable(&name)),
        None => format!("uid {uid}"),
    }
}

/// The name of a user, as /etc/passwd has it (passwd(5)). Users of a directory service are not
/// there, and are not asked for: it may be slow, or far away.
fn name_of(uid: u32) -> Option<String> {
    name_in(&std::fs::read("/etc/passwd").ok()?, uid)
}

fn name_in(passwd: &[u8], uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let name = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.as_bytes() && !name.is_empty()).then_some(name)
    })?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_of_the_first_line_with_that_number() {
        let passwd = b"root:x:0:0::/root:/bin/sh\n# 7\n:x:7:7::\nlp:x:7:7:a:b\nlp2:x:7:7\nbad:x\n";
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7).as_deref(), Some("lp"));
        assert_eq!(name_in(passwd, 70), None);
        assert_eq!(name_in(b"", 0), None);
    }
}
