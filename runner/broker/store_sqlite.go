package broker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	_ "modernc.org/sqlite" // database/sql's driver "sqlite"
)

// openSQLite opens the file. An answer waits for the disk: synchronous is FULL.
func openSQLite(ctx context.Context, file string) (*store, error) {
	// A path may have the characters that end it in a URL.
	name := (&url.URL{Scheme: "file", Opaque: url.PathEscape(file)}).String()
	db, err := sql.Open("sqlite", name+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // SQLite has one writer
	s := &store{db: db}
	if _, err = db.ExecContext(ctx, schema); err == nil {
		err = s.checkColumns(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", file, err), db.Close())
	}
	return s, nil
}
