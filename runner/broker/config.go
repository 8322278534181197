package broker

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/org/agent-sandbox/runner/secret"
)

// Config is what the operator decides. Nothing of it has a default that allows something.
type Config struct {
	// Audience is what aud of every token must be, the broker's domain as a rule.
	Audience string `yaml:"audience"`
	// Listen is the address that it serves at.
	Listen string `yaml:"listen"`
	// TLS has the files of the certificate and its key. Without them something in front ends TLS.
	TLS struct {
		Certificate string `yaml:"certificate"`
		Key         string `yaml:"key"`
	} `yaml:"tls"`
	// Database is the file of the SQLite database.
	Database string `yaml:"database"`
	// Issuers are those whose tokens count, each with the address of its keys.
	Issuers []Issuer `yaml:"issuers"`
	// Ceiling is the most that any trust policy can give.
	Ceiling map[string]string `yaml:"ceiling"`
	Apps    []App             `yaml:"apps"`
}

// Issuer is pinned to the address of its keys.
type Issuer struct {
	Issuer string `yaml:"issuer"`
	JWKS   string `yaml:"jwks"`
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

	key    *rsa.PrivateKey
	client *http.Client
}

// ParseConfig reads the file. The keys are still to be filled in.
func ParseConfig(name string, src []byte) (Config, error) {
	var cfg Config
	if err := loadYAML(src, &cfg); err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return cfg, nil
}

// check reports everything that is wrong, and readies the Apps.
func (c *Config) check() error {
	var all []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			all = append(all, fmt.Errorf(format, args...))
		}
	}
	want(c.Audience != "", "audience is missing")
	want(c.Database != "", "database is missing")
	want(len(c.Issuers) > 0, "issuers are missing")
	want(len(c.Ceiling) > 0, "ceiling is missing: it is the most that a trust policy can give")
	want(len(c.Apps) > 0, "apps are missing")
	for name, level := range c.Ceiling {
		want(rank(level) > 0, "ceiling.%s: %q is none of read, write and admin", name, level)
	}
	for i, issuer := range c.Issuers {
		want(issuer.Issuer != "" && safeURL(issuer.JWKS), "issuers[%d]: want issuer, and jwks as an https URL", i)
	}
	for i := range c.Apps {
		a := &c.Apps[i]
		want(a.ID > 0 && len(a.Owners) > 0, "apps[%d]: want id and owners", i)
		want(safeURL(a.API), "apps[%d].api: want an https URL", i)
		var err error
		a.key, err = parseKey(a.Key)
		want(err == nil, "apps[%d]: private key: %v", i, err)
		a.client = limitedClient()
	}
	return errors.Join(all...)
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
