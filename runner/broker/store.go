package broker

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // database/sql's driver "sqlite"
)

// store has the tokens that were used, and the audit log.
type store struct{ db *sql.DB }

// openStore makes the tables if they are not there. An answer waits for the disk: synchronous is FULL.
func openStore(file string) (*store, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // SQLite has one writer
	_, err = db.Exec(`
		CREATE TABLE IF NOT EXISTS used (issuer TEXT NOT NULL, jti TEXT NOT NULL, expires BIGINT NOT NULL, PRIMARY KEY (issuer, jti));
		CREATE TABLE IF NOT EXISTS audit (at TEXT NOT NULL, trace_id TEXT NOT NULL, issuance_id TEXT NOT NULL, scope TEXT NOT NULL, identity TEXT NOT NULL,
			subject TEXT NOT NULL, run_id TEXT NOT NULL, permissions TEXT NOT NULL, policy TEXT NOT NULL, token_sha256 TEXT NOT NULL, expires TEXT NOT NULL)`)
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	return &store{db}, nil
}

// once tells whether this token is used for the first time, and from then on it is not.
func (s *store) once(ctx context.Context, issuer, jti string, expires, now time.Time) (bool, error) {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM used WHERE expires < ?`, now.Add(-skew).Unix()); err != nil {
		return false, err
	}
	res, err := s.db.ExecContext(ctx, `INSERT INTO used (issuer, jti, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, issuer, jti, expires.Unix())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// record is on the disk when it returns without an error.
func (s *store) record(ctx context.Context, at time.Time, trace, scope, identity string, c *claims, a *answer) error {
	permissions, err := json.Marshal(a.Permissions)
	if err != nil {
		return err
	}
	policy, err := json.Marshal(a.Policy)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, at.UTC().Format(time.RFC3339Nano), trace, a.IssuanceID, scope, identity,
		c.Subject, c.RunID, string(permissions), string(policy), a.TokenSHA256, a.ExpiresAt.UTC().Format(time.RFC3339))
	return err
}
