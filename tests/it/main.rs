//! Integration tests, in the order in which a failure explains the next ones.

mod a_papers;
mod a_tidy;
mod b_basic;
mod c_cache;
mod c_hits;
mod c_leases;
mod c_warm;
mod d_bouncer;
mod d_cluster;
mod d_coherence;
mod d_database;
mod d_migrations;
mod d_plans;
mod d_setup;
mod d_wire;
mod e_etl;
mod f_front;
mod h_described;
mod h_hostile;
mod i_instructions;
mod m_master;
mod m_service;
mod n_browser;
mod r_regress;
mod routes;
mod support;
