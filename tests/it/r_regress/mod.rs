//! One file a bug, opening with its story.

mod bodies_and_readiness;
mod chunk_sizes_are_strict;
mod farewell_and_end_in_one_edge;
mod unsent_answers_stay_home;
