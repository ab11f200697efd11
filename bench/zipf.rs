//! Objects drawn with probability proportional to rank^-alpha.
//! Runs in: offline.

pub struct Zipf {
    cumulated: Vec<f64>,
    state: u64,
}

impl Zipf {
    pub fn new(alpha: f64, objects: usize, seed: u64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=objects).map(|rank| (rank as f64).powf(-alpha));
        let cumulated = weights.map(|weight| {
            sum += weight;
            sum
        });
        Zipf { cumulated: cumulated.collect(), state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }

    /// A number from 0: the smaller the likelier.
    pub fn draw(&mut self) -> i64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.state ^ self.state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let point = ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64;
        let total = self.cumulated.last().copied().unwrap_or_default();
        self.cumulated.partition_point(|sum| *sum < point * total) as i64
    }
}
