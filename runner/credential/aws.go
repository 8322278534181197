package credential

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/secret"
)

// aws gets the short-lived keys of a role for the job's identity. AWS' requests are signed with them, so they can't be attached on the way and
// are inside; nobody can revoke them one by one, and they end after an hour.
//
// See https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html.
type aws struct {
	exchanger
	c   policy.Credential
	url string // of the service for the role's partition
}

const (
	awsAudience = "sts.amazonaws.com"
	awsLife     = "3600" // seconds; what every role allows
	// profileVariable names the file of a profile to AWS' clients.
	profileVariable = "AWS_SHARED_CREDENTIALS_FILE"
)

func (cfg Config) openAWS(c policy.Credential) (issuer, error) {
	// https://docs.aws.amazon.com/general/latest/gr/sts.html
	hosts := map[string]string{"aws": "sts.amazonaws.com", "aws-cn": "sts.cn-north-1.amazonaws.com.cn", "aws-us-gov": "sts.us-gov-west-1.amazonaws.com"}
	partition := strings.Split(c.From.Argument, ":")[1]
	host, known := hosts[partition]
	if !known {
		return nil, refuse("write arn:aws:iam::ACCOUNT:role/NAME", "the role is of the partition %q, whose token service is not known", partition)
	}
	if err := cfg.needIdentity("use `env:` or `exec:`, with `deliver: file`"); err != nil {
		return nil, err
	}
	return aws{exchanger{cfg, "AWS' token service"}, c, "https://" + host + "/"}, nil
}

// assumed is the answer.
type assumed struct {
	Result struct {
		Credentials struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
			Expiration      time.Time
		}
		AssumedRoleUser struct {
			ID string `xml:"AssumedRoleId"`
		}
	} `xml:"AssumeRoleWithWebIdentityResult"`
}

func (a aws) issue(ctx context.Context) (token, error) {
	identity, err := a.cfg.OIDC(ctx, awsAudience)
	if err != nil {
		return token{}, err
	}
	form := url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {a.c.From.Argument},
		"RoleSessionName": {a.cfg.session()}, "DurationSeconds": {awsLife}, "WebIdentityToken": {identity.Reveal()},
	}
	var got assumed
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	if err := a.send(ctx, http.MethodPost, a.url, header, []byte(form.Encode()), func(r *http.Response) error { return readXML(r, &got) }); err != nil {
		return token{}, fmt.Errorf("assume the role %s: %w", a.c.From.Argument, err)
	}
	c := got.Result.Credentials
	if c.AccessKeyID == "" || c.SecretAccessKey == "" || c.SessionToken == "" || c.Expiration.IsZero() {
		return token{}, errNoEnd
	}
	return token{
		value: secret.New(c.SecretAccessKey), expires: c.Expiration, issuance: got.Result.AssumedRoleUser.ID,
		parts: []part{
			{"AWS_ACCESS_KEY_ID", secret.New(c.AccessKeyID)}, {"AWS_SECRET_ACCESS_KEY", secret.New(c.SecretAccessKey)}, {"AWS_SESSION_TOKEN", secret.New(c.SessionToken)},
		},
	}, nil
}

// session names the run in CloudTrail: at most 64 letters, digits and =,.@-_.
func (cfg Config) session() string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '-' || r == '_' || r == '.' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '-'
	}, "agent-sandbox-"+cfg.Run)
	return name[:min(len(name), 64)]
}

// readXML is readAnswer for AWS.
func readXML(resp *http.Response, out any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error struct{ Code, Message string }
		}
		_ = xml.Unmarshal(b, &e) // a message is a courtesy
		return &statusError{resp.StatusCode, strings.TrimSpace(e.Error.Code + " " + e.Error.Message[:min(len(e.Error.Message), 300)])}
	}
	if xml.Unmarshal(b, out) != nil {
		return fmt.Errorf("the answer is not the XML that was expected")
	}
	return nil
}

// profile is the file that AWS' clients read keys from.
func profile(parts []part) secret.Value {
	var b strings.Builder
	b.WriteString("[default]\n")
	for _, p := range parts {
		fmt.Fprintf(&b, "%s = %s\n", strings.ToLower(p.name), p.value.Reveal())
	}
	return secret.New(b.String())
}
