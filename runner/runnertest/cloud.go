package runnertest

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The hosts that a [Cloud] is.
const (
	VaultHost       = "vault.example.com"
	awsHost         = "sts.amazonaws.com"
	googleTokenHost = "sts.googleapis.com"
	googleIAMHost   = "iamcredentials.googleapis.com"
)

// CloudConfig is what a [Cloud] gives to whom: to jobs of one repository.
type CloudConfig struct {
	RepositoryID string // that a job's token must have
	Role         string // of Vault's JWT authentication, whose audience is Vault's address
	// Secrets are those that the role may read: fields by path, MOUNT/data/PATH.
	Secrets map[string]map[string]any
	RoleARN string // of AWS
	// Provider and Account are Google's: the identity provider's resource name, and the service account that it may stand in for.
	Provider, Account string
}

// Cloud is Vault, AWS' security token service and Google's two of that kind, as far as a job's identity is exchanged there. What they don't know they
// answer with 501.
type Cloud struct {
	cfg    CloudConfig
	oidc   *OIDC
	server *httptest.Server

	mu       sync.Mutex // guards what follows
	vault    map[string]bool
	google   map[string]bool // federated tokens
	requests []Request
}

// NewCloud starts one that trusts an issuer, for as long as the test lives.
func NewCloud(t testing.TB, oidc *OIDC, cfg CloudConfig) *Cloud {
	t.Helper()
	c := &Cloud{cfg: cfg, oidc: oidc, vault: map[string]bool{}, google: map[string]bool{}}
	c.server = httptest.NewTLSServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	return c
}

// Client reaches it under all its names, and trusts it.
func (c *Cloud) Client() *http.Client {
	transport := c.server.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "example.com" // that of httptest's certificate
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, c.server.Listener.Addr().String())
	}
	return &http.Client{Transport: transport}
}

// VaultTokens is how many of Vault's are good.
func (c *Cloud) VaultTokens() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.vault)
}

// Requests are those that came so far, with the host before the path.
func (c *Cloud) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, Request{Method: r.Method, Path: r.Host + r.URL.Path, Body: string(body), Header: r.Header.Clone()})
	switch {
	case r.Host == VaultHost:
		c.serveVault(w, r, body)
	case r.Host == awsHost && r.Method == http.MethodPost && r.URL.Path == "/":
		c.assumeRole(w, body)
	case r.Host == googleTokenHost && r.Method == http.MethodPost && r.URL.Path == "/v1/token":
		c.federate(w, body)
	case r.Host == googleIAMHost && r.Method == http.MethodPost:
		c.standIn(w, r, body)
	default:
		writeJSON(w, http.StatusNotImplemented, map[string]any{"message": "runnertest: this cloud has no " + r.Method + " " + r.Host + r.URL.Path})
	}
}

// identity checks a job's token: what it must be for, and whose it must be.
func (c *Cloud) identity(token, audience string) error {
	claims, err := c.oidc.Verify(token, audience)
	if err == nil && claims["repository_id"] != c.cfg.RepositoryID {
		err = fmt.Errorf("claim %q does not match any associated bound claim values", "repository_id")
	}
	return err
}

// strict decodes JSON, and refuses what it doesn't know.
func strict(body []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func vaultError(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, map[string]any{"errors": []string{message}})
}

func (c *Cloud) serveVault(w http.ResponseWriter, r *http.Request, body []byte) {
	token := r.Header.Get("X-Vault-Token")
	path, read := strings.CutPrefix(r.URL.Path, "/v1/")
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/v1/auth/jwt/login":
		var in struct{ Role, JWT string }
		if err := strict(body, &in); err != nil {
			vaultError(w, http.StatusBadRequest, err.Error())
			return
		}
		if in.Role != c.cfg.Role {
			vaultError(w, http.StatusBadRequest, fmt.Sprintf("role %q could not be found", in.Role))
			return
		}
		if err := c.identity(in.JWT, "https://"+VaultHost); err != nil {
			vaultError(w, http.StatusBadRequest, "error validating token: "+err.Error())
			return
		}
		token := "hvs." + randomText(60)
		c.vault[token] = true
		writeJSON(w, http.StatusOK, map[string]any{"request_id": randomText(12), "auth": map[string]any{"client_token": token, "lease_duration": 300, "renewable": true}})
	case !c.vault[token]:
		vaultError(w, http.StatusForbidden, "permission denied")
	case r.Method == http.MethodPost && r.URL.Path == "/v1/auth/token/revoke-self":
		delete(c.vault, token)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodGet && read && c.cfg.Secrets[path] != nil:
		writeJSON(w, http.StatusOK, map[string]any{
			"request_id": "req-" + randomText(12), "data": map[string]any{"data": c.cfg.Secrets[path], "metadata": map[string]any{"version": 3}},
		})
	case r.Method == http.MethodGet: // a policy of Vault's does not tell what is there
		vaultError(w, http.StatusForbidden, "permission denied")
	default:
		vaultError(w, http.StatusNotImplemented, "runnertest: this Vault has no "+r.Method+" "+r.URL.Path)
	}
}

func awsError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>%s</Code><Message>", code)
	_ = xml.EscapeText(w, []byte(message))
	_, _ = io.WriteString(w, "</Message></Error><RequestId>x</RequestId></ErrorResponse>")
}

func (c *Cloud) assumeRole(w http.ResponseWriter, body []byte) {
	form, err := url.ParseQuery(string(body))
	known := []string{"Action", "Version", "RoleArn", "RoleSessionName", "DurationSeconds", "WebIdentityToken"}
	for name := range form {
		if !slices.Contains(known, name) {
			awsError(w, http.StatusNotImplemented, "Unknown", "runnertest: "+name)
			return
		}
	}
	session := form.Get("RoleSessionName")
	switch {
	case err != nil || form.Get("Action") != "AssumeRoleWithWebIdentity" || form.Get("Version") != "2011-06-15" || form.Get("DurationSeconds") != "3600":
		awsError(w, http.StatusBadRequest, "InvalidAction", "Could not find operation")
		return
	case len(session) < 2 || len(session) > 64 || strings.ContainsAny(session, " :/"):
		awsError(w, http.StatusBadRequest, "ValidationError", "1 validation error detected: Value at 'roleSessionName' failed to satisfy constraint")
		return
	}
	if err := c.identity(form.Get("WebIdentityToken"), "sts.amazonaws.com"); err != nil {
		awsError(w, http.StatusBadRequest, "InvalidIdentityToken", err.Error())
		return
	}
	if form.Get("RoleArn") != c.cfg.RoleARN {
		awsError(w, http.StatusForbidden, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
		return
	}
	w.Header().Set("Content-Type", "text/xml")
	fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/agent/%[1]s</Arn><AssumedRoleId>AROA0123456789ABCDEFG:%[1]s</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ASIA%[2]s</AccessKeyId><SecretAccessKey>%[3]s</SecretAccessKey><SessionToken>%[4]s</SessionToken><Expiration>%[5]s</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
		session, strings.ToUpper(strings.NewReplacer("-", "A", "_", "B").Replace(randomText(12))), randomText(30), randomText(300), c.oidc.now().Add(time.Hour).Format(time.RFC3339))
}

// federate exchanges the job's token for one of the pool.
func (c *Cloud) federate(w http.ResponseWriter, body []byte) {
	var in struct{ Audience, GrantType, RequestedTokenType, Scope, SubjectToken, SubjectTokenType string }
	err := strict(body, &in)
	if err == nil && (in.Audience != "//iam.googleapis.com/"+c.cfg.Provider || in.GrantType != "urn:ietf:params:oauth:grant-type:token-exchange" ||
		in.RequestedTokenType != "urn:ietf:params:oauth:token-type:access_token" || in.SubjectTokenType != "urn:ietf:params:oauth:token-type:jwt" ||
		in.Scope != "https://www.googleapis.com/auth/cloud-platform") {
		err = fmt.Errorf("invalid value for audience, or of a type")
	}
	if err == nil {
		err = c.identity(in.SubjectToken, "https://iam.googleapis.com/"+c.cfg.Provider)
	}
	if err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": err.Error()})
		return
	}
	token := "ya29.d." + randomText(120)
	c.google[token] = true
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3599,
	})
}

// standIn gives a token of the service account.
func (c *Cloud) standIn(w http.ResponseWriter, r *http.Request, body []byte) {
	var in struct {
		Scope    []string
		Lifetime string
	}
	refuse := func(status int, message string) {
		writeJSON(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "status": "PERMISSION_DENIED"}})
	}
	switch {
	case !c.google[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]:
		refuse(http.StatusUnauthorized, "Request had invalid authentication credentials.")
	case r.URL.Path != "/v1/projects/-/serviceAccounts/"+c.cfg.Account+":generateAccessToken":
		refuse(http.StatusForbidden, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
	case strict(body, &in) != nil || in.Lifetime != "3600s" || len(in.Scope) != 1:
		refuse(http.StatusBadRequest, "Request contains an invalid argument.")
	default:
		writeJSON(w, http.StatusOK, map[string]any{"accessToken": "ya29.c." + randomText(120), "expireTime": c.oidc.now().Add(time.Hour).Format(time.RFC3339)})
	}
}
