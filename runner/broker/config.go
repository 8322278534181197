package broker

import (
	"cmp"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// Config is what the operator decides. Nothing of it has a default that allows something.
type Config struct {
	// Audience is what aud of every token must be, the broker's domain as a rule.
	Audience string `yaml:"audience"`
	// Listen is the address that it serves at.
	Listen string `yaml:"listen"`
	// TLS has the files of the certificate and its key. Without them something in front ends TLS.
	TLS TLS `yaml:"tls"`
	// Database is a file, for SQLite and one replica, or a postgres:// URL without a password, for several. DatabaseEnv names the variable of
	// a URL instead. Whoever reads the file resolves it into DatabaseURL.
	Database    string       `yaml:"database"`
	DatabaseEnv string       `yaml:"database_env"`
	DatabaseURL secret.Value `yaml:"-"`
	// Issuers are those whose tokens count, each with the address of its keys.
	Issuers []Issuer `yaml:"issuers"`
	// Ceiling is the most that any trust policy can give.
	Ceiling map[string]string `yaml:"ceiling"`
	Apps    []App             `yaml:"apps"`
	Limits  Limits            `yaml:"limits"`
	// Proxies are the networks, as CIDR, whose X-Forwarded-For is believed.
	Proxies []string `yaml:"proxies"`

	places places
}

// TLS names two PEM files, which are read again when they change.
type TLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Issuer is pinned to the address of its keys.
type Issuer struct {
	Issuer string `yaml:"issuer"`
	JWKS   string `yaml:"jwks"`
}

// Limits hold off a flood. Zero is the default.
type Limits struct {
	// Repository is how many exchanges jobs of one repository have in a minute: 120.
	Repository int `yaml:"per_repository"`
	// Address is how many tokens that are not valid one client address may show in a minute: 60. After that it gets no answer on any until the next one.
	Address int `yaml:"per_address"`
	// InFlight is how many exchanges there are at one time: 256.
	InFlight int `yaml:"in_flight"`
}

func (l Limits) withDefaults() Limits {
	return Limits{cmp.Or(l.Repository, 120), cmp.Or(l.Address, 60), cmp.Or(l.InFlight, 256)}
}

// App is a GitHub App whose tokens are handed out for repositories of Owners.
type App struct {
	ID     int64    `yaml:"id"`
	Owners []string `yaml:"owners"`
	// API is the base URL, https://HOST/api/v3 for a GitHub Enterprise Server.
	API string `yaml:"api"`
	// KeyFile or KeyEnv say where the private key is. Whoever reads the file fills in Key.
	KeyFile string       `yaml:"key_file"`
	KeyEnv  string       `yaml:"key_env"`
	Key     secret.Value `yaml:"-"`
}

// check reports everything that is wrong, each at its place in the file.
func (c *Config) check() error {
	var all policy.Problems
	want := func(ok bool, path, format string, args ...any) {
		if !ok {
			all = append(all, policy.Problem{Place: c.places.of(path), Path: path, Message: fmt.Sprintf(format, args...)})
		}
	}
	want(c.Audience != "", "audience", "is missing: it is what aud of every token must be, the broker's domain as a rule")
	want((c.TLS.Certificate == "") == (c.TLS.Key == ""), "tls", "want certificate and key, or neither")
	c.checkDatabase(want)
	want(len(c.Issuers) > 0, "issuers", "are missing")
	for i, issuer := range c.Issuers {
		at := fmt.Sprintf("issuers[%d]", i)
		want(issuer.Issuer != "", at, "issuer is missing")
		want(safeURL(issuer.JWKS), at+".jwks", "want an https URL")
		want(!slices.ContainsFunc(c.Issuers[:i], func(o Issuer) bool { return o.Issuer == issuer.Issuer }), at, "this issuer is there twice")
	}
	want(len(c.Ceiling) > 0, "ceiling", "is missing: it is the most that a trust policy can give")
	for _, name := range slices.Sorted(maps.Keys(c.Ceiling)) {
		want(rank(c.Ceiling[name]) > 0, "ceiling."+name, "%q is none of read, write and admin", c.Ceiling[name])
	}
	want(len(c.Apps) > 0, "apps", "are missing")
	for i, a := range c.Apps {
		at := fmt.Sprintf("apps[%d]", i)
		want(a.ID > 0, at+".id", "want the App's number")
		want(len(a.Owners) > 0, at+".owners", "are missing")
		want(safeURL(a.API), at+".api", "want an https URL, https://api.github.com as a rule")
		want((a.KeyFile == "") != (a.KeyEnv == "") || !a.Key.IsEmpty(), at, "want one of key_file and key_env")
		if _, err := parseKey(a.Key); err != nil && (a.KeyFile != "" || a.KeyEnv != "" || !a.Key.IsEmpty()) {
			want(false, at, "private key: %v", err)
		}
	}
	want(min(c.Limits.Repository, c.Limits.Address, c.Limits.InFlight) >= 0, "limits", "can't be negative")
	for i, text := range c.Proxies {
		_, err := netip.ParsePrefix(text)
		want(err == nil, fmt.Sprintf("proxies[%d]", i), "want a network such as 10.0.0.0/8")
	}
	return sorted(all)
}

func (c *Config) checkDatabase(want func(ok bool, path, format string, args ...any)) {
	want((c.Database == "") != (c.DatabaseEnv == ""), "database", "want one of database and database_env")
	want(c.Database == "" || !hasPassword(c.Database), "database", "has a password in it: put the URL into a variable, and name that by database_env")
	want(c.DatabaseEnv == "" || isPostgres(c.DatabaseURL.Reveal()), "database_env", "%s has no postgres:// URL", c.DatabaseEnv)
	for path, url := range map[string]string{"database": c.Database, "database_env": c.DatabaseURL.Reveal()} {
		if isPostgres(url) {
			_, err := postgresURL(url)
			want(err == nil, path, "%v", err)
		}
	}
}

func hasPassword(text string) bool {
	u, err := url.Parse(text)
	if err != nil || !isPostgres(text) {
		return false
	}
	_, has := u.User.Password()
	return has || u.Query().Has("password")
}

// safeURL takes plain HTTP for loopback alone.
func safeURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
}

func parseKey(v secret.Value) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(v.Reveal()))
	if block == nil {
		return nil, errors.New("no PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("neither PKCS #1 nor PKCS #8")
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return rsaKey, nil
}
