package broker

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// schema is the same for both databases.
//
// used has the tokens that were exchanged. audit has a row for each exchange of a valid token, granted (code 0) or refused; refusals of others, and those
// by a limit, are in the log alone, or anybody could fill the disk. permissions and policy are JSON; columns of a grant are empty in a refusal.
const schema = `
CREATE TABLE IF NOT EXISTS used (issuer TEXT NOT NULL, jti TEXT NOT NULL, expires BIGINT NOT NULL, PRIMARY KEY (issuer, jti));
CREATE INDEX IF NOT EXISTS used_expires ON used (expires);
CREATE TABLE IF NOT EXISTS audit (at TEXT NOT NULL, trace_id TEXT NOT NULL, code BIGINT NOT NULL, reason TEXT NOT NULL,
	issuer TEXT NOT NULL, subject TEXT NOT NULL, jti TEXT NOT NULL, repository_id TEXT NOT NULL, run_id TEXT NOT NULL, event TEXT NOT NULL,
	scope TEXT NOT NULL, identity TEXT NOT NULL, issuance_id TEXT NOT NULL, permissions TEXT NOT NULL, policy TEXT NOT NULL,
	token_sha256 TEXT NOT NULL, expires TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at);`

const insertAudit = `INSERT INTO audit (at, trace_id, code, reason, issuer, subject, jti, repository_id, run_id, event, scope, identity,
	issuance_id, permissions, policy, token_sha256, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const (
	// keepUsed is how long a used token is remembered beyond its end: the clocks of replicas may differ by so much.
	keepUsed = time.Hour
	// sweepEvery is how often those are forgotten.
	sweepEvery = time.Minute
)

// store has the tokens that were used, and the audit log.
type store struct {
	db       *sql.DB
	numbered bool // placeholders are $1, $2, ...

	mu    sync.Mutex // guards the rest
	swept time.Time
}

// openStore makes the tables if they are not there. database is a file, for SQLite, or a postgres:// URL.
func openStore(ctx context.Context, database string) (*store, error) {
	if isPostgres(database) {
		return openPostgres(ctx, database)
	}
	return openSQLite(ctx, database)
}

func (s *store) exec(ctx context.Context, query string, args ...any) (rows int64, err error) {
	res, err := s.db.ExecContext(ctx, s.placeholders(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (s *store) placeholders(query string) string {
	if !s.numbered {
		return query
	}
	var b strings.Builder
	for i, part := range strings.Split(query, "?") {
		if i > 0 {
			b.WriteString("$" + strconv.Itoa(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

// once tells whether this token is used for the first time, and from then on it is not: of several replicas that ask at the same moment one is told so.
func (s *store) once(ctx context.Context, c *claims, now time.Time) (bool, error) {
	if err := s.sweep(ctx, now); err != nil {
		return false, err
	}
	n, err := s.exec(ctx, `INSERT INTO used (issuer, jti, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, c.Issuer, c.ID, c.Expires)
	return n == 1, err
}

// sweep forgets used tokens that are long over.
func (s *store) sweep(ctx context.Context, now time.Time) error {
	s.mu.Lock()
	due := now.Sub(s.swept) >= sweepEvery
	if due {
		s.swept = now
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	_, err := s.exec(ctx, `DELETE FROM used WHERE expires < ?`, now.Add(-keepUsed).Unix())
	return err
}

// seen tells whether the token was used, and leaves it as it is.
func (s *store) seen(ctx context.Context, c *claims) (bool, error) {
	var n int
	err := s.db.QueryRowContext(ctx, s.placeholders(`SELECT count(*) FROM used WHERE issuer = ? AND jti = ?`), c.Issuer, c.ID).Scan(&n)
	return n > 0, err
}

// giveBack lets a token be used again, for which nothing was issued.
func (s *store) giveBack(ctx context.Context, c *claims) error {
	_, err := s.exec(ctx, `DELETE FROM used WHERE issuer = ? AND jti = ?`, c.Issuer, c.ID)
	return err
}

// record is of one exchange: of a grant if it has an answer, else of a refusal.
type record struct {
	at              time.Time
	trace           string
	code            int
	reason          string
	claims          *claims
	scope, identity string
	answer          *answer
}

// write has the record on the disk when it returns without an error.
func (s *store) write(ctx context.Context, r record) error {
	a, permissions, policy, expires := r.answer, []byte{}, []byte{}, ""
	if a == nil {
		a = &answer{}
	} else {
		var err error
		if permissions, err = json.Marshal(a.Permissions); err != nil {
			return err
		}
		if policy, err = json.Marshal(a.Policy); err != nil {
			return err
		}
		expires = a.ExpiresAt.UTC().Format(time.RFC3339)
	}
	c := r.claims
	_, err := s.exec(ctx, insertAudit, r.at.UTC().Format(time.RFC3339Nano), r.trace, r.code, r.reason, c.Issuer, c.Subject, c.ID, c.RepositoryID, c.RunID, c.Event,
		r.scope, r.identity, a.IssuanceID, string(permissions), string(policy), a.TokenSHA256, expires)
	return err
}

// checkColumns refuses a table of another version now, not at the first exchange.
func (s *store) checkColumns(ctx context.Context) error {
	rows, err := s.db.QueryContext(ctx, `SELECT at, trace_id, code, reason, event, scope, token_sha256 FROM audit LIMIT 0`)
	if err != nil {
		return fmt.Errorf("the table audit is not of this version (move the old one away): %w", err)
	}
	return rows.Close()
}
