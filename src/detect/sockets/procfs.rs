//! /proc/net/{tcp,tcp6,udp,udp6} (proc_net(5)): what there is where netlink is refused. The kernel
//! takes ten times as long for it.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Query, Row};

/// The rows that `query` asks for, of both families. Sockets that are bound and do neither listen
/// nor connect are not in these files.
pub(super) fn rows(query: Query<'_>) -> io::Result<Vec<Row>> {
    let (ipv4, ipv6) = if query.protocol.has_tcp() { ("tcp", "tcp6") } else { ("udp", "udp6") };
    let mut rows = Vec::new();
    add(&table(ipv4)?, query, &mut rows)?;
    match table(ipv6) {
        Ok(text) => add(&text, query, &mut rows)?,
        // The kernel has no IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    once_each(&mut rows);
    Ok(rows)
}

/// A table that changes while it is read may have a socket twice. Those without an inode are
/// connections that nobody has any more.
fn once_each(rows: &mut Vec<Row>) {
    let mut seen = HashSet::new();
    rows.retain(|row| row.inode == 0 || seen.insert(row.inode));
}

/// The table of the calling thread's network namespace, as netlink has it; /proc/net is that of
/// the main thread.
fn table(name: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/thread-self/net/{name}"))
}

/// Adds the rows that `query` asks for.
pub(super) fn add(table: &str, query: Query, rows: &mut Vec<Row>) -> io::Result<()> {
    // The first line is the heading.
    for line in table.lines().skip(1) {
        let row = parse(line).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("cannot read the line '{line}'"))
        })?;
        let wanted = 1_u32.checked_shl(row.state.into()).unwrap_or(0);
        if query.states & wanted != 0 && query.ports.contain(row.local.port()) {
            rows.push(row);
        }
    }
    Ok(())
}

/// `sl local remote state tx:rx timer:when retransmits uid timeout inode …`
fn parse(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some(Row {
        local: address(fields.next()?)?,
        peer: address(fields.next()?)?,
        state: u8::from_str_radix(fields.next()?, 16).ok()?,
        uid: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

/// `0100007F:1F90`, or 32 digits before the colon.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(ip)?)),
        32 => {
            let mut octets = [0; 16];
            for (i, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(ip.get(i * 8..i * 8 + 8)?)?);
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel prints four octets of an address as one number of its own byte order.
fn word(digits: &str) -> Option<[u8; 4]> {
    u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_listed_twice_is_one() {
        let row = |inode| Row {
            local: (Ipv4Addr::LOCALHOST, 80).into(),
            peer: (Ipv4Addr::LOCALHOST, 0).into(),
            state: 10,
            uid: 1,
            inode,
        };
        let mut rows = vec![row(7), row(0), row(8), row(7), row(0)];
        once_each(&mut rows);
        let inodes: Vec<_> = rows.iter().map(|row| row.inode).collect();
        assert_eq!(inodes, [7, 0, 8, 0]);
    }
}
