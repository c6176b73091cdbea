//! One file an API: a request in, its response out. What is decided about topics and configs is decided by the controller's
//! machine; handlers translate.

mod alter;
pub mod alter_configs;
pub mod api_versions;
mod authorized;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_topic_partitions;
pub mod fetch;
pub mod fetch_session;
pub mod find_coordinator;
mod group;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod list_offsets;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
mod on_disk;
pub mod produce;
mod produce_check;
pub mod sync_group;
mod topic_view;
