package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// maxConnections is of each replica. An exchange has one for as long as a statement takes.
	maxConnections = 8
	// connectionLife lets replicas follow a database that moved.
	connectionLife = 30 * time.Minute
	// statementTimeout ends a statement in the server, should the broker be gone.
	statementTimeout = "10s"
	// schemaLock is an advisory lock, of a number that nobody else has a reason to take: replicas that start together make the tables one after another.
	schemaLock = 0x61736272 // "asbr"
)

func isPostgres(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// postgresURL fills in what protects the connection. Whoever wants less has to say so; what falls back silently is refused.
func postgresURL(database string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", errors.New("not a URL") // the parser's own message has the password in it
	}
	q := u.Query()
	host := u.Hostname()
	if h := q.Get("host"); h != "" {
		host = h
	}
	switch mode := q.Get("sslmode"); {
	case mode == "allow" || mode == "prefer":
		return "", fmt.Errorf("sslmode=%s goes on in clear text when TLS fails: want verify-full, verify-ca, require or disable", mode)
	case mode == "" && !isLocal(host):
		q.Set("sslmode", "verify-full")
	case mode == "":
		q.Set("sslmode", "disable")
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// isLocal takes a directory of Unix sockets and loopback.
func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
}

// openPostgres connects to a server that several replicas share.
func openPostgres(ctx context.Context, database string) (*store, error) {
	address, err := postgresURL(database)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	cfg, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err) // pgx leaves the password out
	}
	cfg.ConnectTimeout = 10 * time.Second
	// An answer waits for the disk, whatever the server's default is.
	cfg.RuntimeParams["synchronous_commit"] = "on"
	cfg.RuntimeParams["statement_timeout"] = statementTimeout
	cfg.RuntimeParams["application_name"] = "agent-sandbox-broker"
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	db.SetConnMaxLifetime(connectionLife)
	s := &store{db: db, numbered: true}
	if err = s.makeTables(ctx); err == nil {
		err = s.checkColumns(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database: %w", err), db.Close())
	}
	return s, nil
}

// makeTables holds a lock meanwhile: CREATE TABLE IF NOT EXISTS fails when two do it at the same moment.
func (s *store) makeTables(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, schemaLock); err != nil {
		return err
	}
	for statement := range strings.SplitSeq(schema, ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}
