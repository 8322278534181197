package runnertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRepositoryIDs is how many repositories a token may be asked for by id.
const maxRepositoryIDs = 500

// App is a GitHub App.
type App struct {
	ID          int64
	Slug        string
	ClientID    string
	Key         *rsa.PrivateKey
	Permissions map[string]string // the most that an installation of it has
}

// PEM is the key as GitHub hands it out.
func (a *App) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(a.Key)})
}

// Installation is an App at one owner.
type Installation struct {
	ID            int64
	App           *App
	Owner         string
	Permissions   map[string]string
	RepositoryIDs []int64 // nil is all of the owner's
	Suspended     bool
}

// AddApp makes an App with a new key.
func (g *GitHub) AddApp(permissions map[string]string) *App {
	g.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	id := g.id()
	a := &App{ID: id, Slug: fmt.Sprintf("app-%d", id), ClientID: fmt.Sprintf("Iv23li%014d", id), Key: key, Permissions: permissions}
	g.apps[id] = a
	return a
}

// Install gives the App its permissions at the owner, for these repositories or for all.
func (g *GitHub) Install(a *App, ownerName string, repositories ...*Repository) *Installation {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.owner(ownerName)
	i := &Installation{ID: g.id(), App: a, Owner: ownerName, Permissions: a.Permissions}
	for _, r := range repositories {
		i.RepositoryIDs = append(i.RepositoryIDs, r.ID)
	}
	g.installations[i.ID] = i
	return i
}

func (i *Installation) covers(r *Repository) bool {
	t := Token{RepositoryIDs: i.RepositoryIDs, owner: i.Owner}
	return t.sees(r)
}

// checkAppJWT is GitHub's check of a JWT that an App signs. The caller holds the lock.
func (g *GitHub) checkAppJWT(token string) (*App, error) {
	//lint:ignore ST1005 GitHub's own words
	invalid := errors.New("A JSON web token could not be decoded")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, invalid
	}
	var header struct{ Alg string }
	var claims struct {
		Iss json.RawMessage
		Iat int64
		Exp int64
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || decodePart(parts[0], &header) != nil || decodePart(parts[1], &claims) != nil || header.Alg != "RS256" {
		return nil, invalid
	}
	app := g.appOf(strings.Trim(string(claims.Iss), `"`))
	if app == nil {
		return nil, errors.New("'Issuer' claim ('iss') must be an Integer")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if rsa.VerifyPKCS1v15(&app.Key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		return nil, invalid
	}
	now := g.now()
	switch exp := time.Unix(claims.Exp, 0); {
	case time.Unix(claims.Iat, 0).After(now):
		return nil, errors.New("'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	case !exp.After(now):
		return nil, errors.New("'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	case exp.After(now.Add(10 * time.Minute)):
		return nil, errors.New("'Expiration time' claim ('exp') is too far in the future")
	}
	return app, nil
}

// appOf finds an App by what may stand in iss: its id or its client id.
func (g *GitHub) appOf(iss string) *App {
	for _, a := range g.apps {
		if iss == strconv.FormatInt(a.ID, 10) || iss == a.ClientID {
			return a
		}
	}
	return nil
}

func decodePart(part string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func appEndpoints() []endpoint {
	return []endpoint{
		{"GET /app", byApp, "", func(c *call) {
			c.answer(200, map[string]any{"id": c.app.ID, "slug": c.app.Slug, "client_id": c.app.ClientID, "name": c.app.Slug, "permissions": c.app.Permissions})
		}},
		{"GET /app/installations", byApp, "", func(c *call) {
			list := []any{}
			for _, i := range c.g.installations {
				if i.App == c.app {
					list = append(list, c.g.installationJSON(i))
				}
			}
			c.answer(200, list)
		}},
		{"GET /app/installations/{id}", byApp, "", func(c *call) {
			if i := c.installation(); i != nil {
				c.answer(200, c.g.installationJSON(i))
			}
		}},
		{"GET /repos/{owner}/{repo}/installation", byApp, "", func(c *call) {
			repo := c.g.find(c.value("owner"), c.value("repo"))
			c.findInstallation(func(i *Installation) bool { return repo != nil && i.covers(repo) })
		}},
		{"GET /orgs/{owner}/installation", byApp, "", (*call).ownerInstallation},
		{"GET /users/{owner}/installation", byApp, "", (*call).ownerInstallation},
		{"POST /app/installations/{id}/access_tokens", byApp, "", (*call).mint},
		{"DELETE /installation/token", byToken, "", (*call).revoke},
		{"GET /installation/repositories", byToken, "metadata=read", (*call).installationRepositories},
	}
}

func (c *call) ownerInstallation() {
	c.findInstallation(func(i *Installation) bool { return strings.EqualFold(i.Owner, c.value("owner")) })
}

func (c *call) findInstallation(match func(*Installation) bool) {
	for _, i := range c.g.installations {
		if i.App == c.app && match(i) {
			c.answer(200, c.g.installationJSON(i))
			return
		}
	}
	c.fail(http.StatusNotFound, "Not Found")
}

// installation is the one of the path, if it is the App's.
func (c *call) installation() *Installation {
	id, _ := strconv.ParseInt(c.value("id"), 10, 64)
	i := c.g.installations[id]
	if i == nil || i.App != c.app {
		c.fail(http.StatusNotFound, "Not Found")
		return nil
	}
	return i
}

func (g *GitHub) installationJSON(i *Installation) map[string]any {
	v := map[string]any{
		"id": i.ID, "app_id": i.App.ID, "app_slug": i.App.Slug, "permissions": i.Permissions,
		"account":              map[string]any{"login": i.Owner, "id": g.owner(i.Owner).id, "type": "Organization"},
		"repository_selection": selection(i.RepositoryIDs), "target_type": "Organization",
	}
	if i.Suspended {
		v["suspended_at"] = g.now().Format(time.RFC3339)
	}
	return v
}

func selection(ids []int64) string {
	if ids == nil {
		return "all"
	}
	return "selected"
}
