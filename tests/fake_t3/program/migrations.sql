-- 31
DROP TABLE auth_pairing_links;
DROP TABLE auth_sessions;
CREATE TABLE auth_pairing_links (
      id TEXT PRIMARY KEY,
      credential TEXT NOT NULL UNIQUE,
      method TEXT NOT NULL,
      scopes TEXT NOT NULL,
      subject TEXT NOT NULL,
      label TEXT,
      created_at TEXT NOT NULL,
      expires_at TEXT NOT NULL,
      consumed_at TEXT,
      revoked_at TEXT
    );
CREATE INDEX idx_auth_pairing_links_active
    ON auth_pairing_links(revoked_at, consumed_at, expires_at)
  ;
CREATE TABLE auth_sessions (
      session_id TEXT PRIMARY KEY,
      subject TEXT NOT NULL,
      scopes TEXT NOT NULL,
      method TEXT NOT NULL,
      client_label TEXT,
      client_ip_address TEXT,
      client_user_agent TEXT,
      client_device_type TEXT NOT NULL DEFAULT 'unknown',
      client_os TEXT,
      client_browser TEXT,
      issued_at TEXT NOT NULL,
      expires_at TEXT NOT NULL,
      last_connected_at TEXT,
      revoked_at TEXT
    );
CREATE INDEX idx_auth_sessions_active
    ON auth_sessions(revoked_at, expires_at, issued_at)
  ;
-- 32
ALTER TABLE auth_pairing_links ADD COLUMN proof_key_thumbprint TEXT;
-- 33
ALTER TABLE projection_threads ADD COLUMN settled_override TEXT;
ALTER TABLE projection_threads ADD COLUMN settled_at TEXT;
-- 34
ALTER TABLE projection_threads ADD COLUMN snoozed_until TEXT;
ALTER TABLE projection_threads ADD COLUMN snoozed_at TEXT;
-- 35
ALTER TABLE projection_threads ADD COLUMN title_regeneration_request_id TEXT;
ALTER TABLE projection_threads ADD COLUMN title_regeneration_started_at TEXT;
-- 36
ALTER TABLE projection_threads ADD COLUMN pinned_at TEXT;
-- 37
CREATE INDEX idx_projection_turns_thread_keyset
    ON projection_turns(thread_id, requested_at, turn_id)
  ;
-- 38
ALTER TABLE projection_threads ADD COLUMN pin_order_key TEXT;
-- 39
ALTER TABLE projection_projects ADD COLUMN default_thread_env_mode TEXT;
-- 40
ALTER TABLE projection_projects ADD COLUMN favicon_path TEXT;
-- 41
ALTER TABLE auth_sessions ADD COLUMN client_surface TEXT;
ALTER TABLE auth_sessions ADD COLUMN client_app_version TEXT;
-- 42
ALTER TABLE projection_threads ADD COLUMN linked_pull_request_json TEXT;
-- 43
ALTER TABLE projection_threads ADD COLUMN unsettled_at TEXT;
-- 45
ALTER TABLE projection_projects ADD COLUMN auto_pull INTEGER NOT NULL DEFAULT 0;
-- 47
ALTER TABLE projection_projects ADD COLUMN project_icon_json TEXT;
-- 48
ALTER TABLE projection_threads ADD COLUMN branch_pull_request_json TEXT;
-- 49
ALTER TABLE projection_threads ADD COLUMN active_order_key TEXT;
-- 50
CREATE TABLE projection_thread_pull_requests (
      thread_id TEXT NOT NULL,
      host TEXT NOT NULL,
      repository TEXT NOT NULL,
      number INTEGER NOT NULL,
      url TEXT NOT NULL,
      source TEXT NOT NULL,
      linked_at TEXT NOT NULL,
      snapshot_json TEXT,
      stack_json TEXT,
      PRIMARY KEY (thread_id, host, repository, number)
    );
CREATE INDEX idx_projection_thread_pull_requests_pr
    ON projection_thread_pull_requests(host, repository, number)
  ;
-- 51
ALTER TABLE projection_thread_messages ADD COLUMN context_json TEXT;
-- 52
ALTER TABLE projection_threads ADD COLUMN title_state_json TEXT;
-- 53
CREATE TABLE pull_request_files_viewed (
      provider TEXT NOT NULL,
      host TEXT NOT NULL,
      repository TEXT NOT NULL,
      number INTEGER NOT NULL,
      viewer TEXT NOT NULL,
      path TEXT NOT NULL,
      revision TEXT,
      viewed_at TEXT NOT NULL,
      PRIMARY KEY (provider, host, repository, number, viewer, path)
    ) WITHOUT ROWID
  ;
-- 54
ALTER TABLE projection_threads ADD COLUMN auto_settle_disabled_at TEXT;
