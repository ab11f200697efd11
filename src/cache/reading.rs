//! When and from which state of the database a value was read, and which of two readings is the later one.
//! Runs in: worker.

pub const POSITION_BITS: u32 = 48;
pub const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
/// Born in a record: 32 bits of 2^24 ns each.
pub const BORN_SHIFT: u32 = 24;

/// When a value was read, and from which state of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// CLOCK_BOOTTIME before the SELECT was sent, in ns; a record keeps it to 17 ms.
    pub born_ns: u64,
    /// Position of the SELECT's snapshot; a record keeps its low 48 bits.
    pub position: u64,
    pub order: Order,
}

/// What positions are, and so what they say of two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Of the snapshots of a single node, all in one row.
    #[default]
    Snapshots,
    /// Of the WAL, where there are replicas: the snapshot has seen everything up to `since`, and nothing behind its position. A record
    /// does not keep the former.
    Wal { since: u64 },
}

/// How one reading stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Later,
    Same,
    Earlier,
    /// They were made at the same time, or by different orders: neither may take the other's place.
    Unknown,
}

impl Reading {
    /// Whether this was read from a later snapshot than `other`: the low bits of their positions go round in a circle, of which half is
    /// later. It takes 2^31 transactions, or 2^47 bytes of WAL, between two readings of one key under one token to be wrong.
    pub fn against(&self, other: &Reading) -> Relation {
        let ahead = |one: u64| one.wrapping_sub(other.position) & POSITION_MASK;
        let is_later = |ahead: u64| ahead < 1 << (POSITION_BITS - 1);
        match (self.order, other.order) {
            (Order::Snapshots, Order::Snapshots) => match ahead(self.position) {
                0 => Relation::Same,
                ahead if is_later(ahead) => Relation::Later,
                _ => Relation::Earlier,
            },
            (Order::Wal { since }, Order::Wal { .. }) if since > 0 && is_later(ahead(since)) => {
                Relation::Later
            }
            _ => Relation::Unknown,
        }
    }

    /// Age at `now_ns`; 0 for what was born after it.
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        let units = (now_ns >> BORN_SHIFT).wrapping_sub(self.born_ns >> BORN_SHIFT) as u32;
        match units > u32::MAX / 2 {
            true => 0,
            false => (u64::from(units) << BORN_SHIFT) + (now_ns & ((1 << BORN_SHIFT) - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_and_older_go_round() {
        let at = |position| Reading { position, ..Reading::default() };
        assert_eq!(at(5).against(&at(4)), Relation::Later);
        assert_eq!(at(4).against(&at(5)), Relation::Earlier);
        assert_eq!(at(4).against(&at(4)), Relation::Same);
        assert_eq!(at(3).against(&at(POSITION_MASK)), Relation::Later, "past the end of 48 bits");
        assert_eq!(at(1 << 48 | 3).against(&at(2)), Relation::Later, "one of them from a record");
        let born = |units: u64| Reading { born_ns: units << BORN_SHIFT, ..Reading::default() };
        let year = 365 * 86400 * 1_000_000_000u64;
        assert_eq!(born(0).age_ns(year), year);
        assert_eq!(born(u64::from(u32::MAX)).age_ns(1 << (32 + BORN_SHIFT)), 1 << BORN_SHIFT);
        assert_eq!(born(10).age_ns(9 << BORN_SHIFT), 0, "born after the question");
    }

    #[test]
    fn by_the_wal_later_is_who_began_where_the_other_ended() {
        let wal = |since, position| Reading { born_ns: 0, position, order: Order::Wal { since } };
        assert_eq!(wal(7, 9).against(&wal(5, 7)), Relation::Later);
        assert_eq!(wal(6, 9).against(&wal(5, 7)), Relation::Unknown, "they overlap");
        assert_eq!(
            wal(2, 3).against(&wal(5, 7)),
            Relation::Unknown,
            "the present one has never to be shown to be later"
        );
        assert_eq!(wal(0, 9).against(&wal(0, 7)), Relation::Unknown, "both from records");
        assert_eq!(wal(7, 9).against(&Reading::default()), Relation::Unknown, "of another order");
        assert_eq!(
            wal(2, 3).against(&wal(POSITION_MASK - 9, POSITION_MASK)),
            Relation::Later,
            "past the end of 48 bits"
        );
    }
}
