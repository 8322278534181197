package rotate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/org/agent-sandbox/policy"
	"github.com/org/agent-sandbox/runner/credential"
	"github.com/org/agent-sandbox/runner/secret"
)

// values are what the words of a step stand for.
type values struct {
	token, new, old secret.Value
	newID, oldID    string
}

func (v values) of(word policy.RotationWord) string {
	return map[policy.RotationWord]string{
		policy.WordToken: v.token.Reveal(), policy.WordNew: v.new.Reveal(), policy.WordOld: v.old.Reveal(), policy.WordNewID: v.newID, policy.WordOldID: v.oldID,
	}[word]
}

// fill puts the values in their places, each escaped for where it stands.
func (v values) fill(text string, escape func(string) string) string {
	var pairs []string
	for _, word := range []policy.RotationWord{policy.WordToken, policy.WordNew, policy.WordOld, policy.WordNewID, policy.WordOldID} {
		pairs = append(pairs, string(word), escape(v.of(word)))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func asIs(s string) string { return s }

// inJSON is the inside of a JSON string.
func inJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("rotate: bug: a string has no JSON: " + err.Error())
	}
	return string(b[1 : len(b)-1])
}

// missing is a word that a step needs and nobody knows the value of.
func (v values) missing(s policy.RotationStep) (policy.RotationWord, bool) {
	for _, word := range []policy.RotationWord{policy.WordToken, policy.WordNew, policy.WordOld, policy.WordNewID, policy.WordOldID} {
		if s.Uses(word) && v.of(word) == "" {
			return word, true
		}
	}
	return "", false
}

// stepTime bounds a request of a step.
const stepTime = 30 * time.Second

// do carries out a step, once, and returns its answer, which may be a secret. An *answerError is the server's refusal.
func (cfg Config) do(ctx context.Context, s policy.RotationStep, v values) (secret.Value, error) {
	if word, missing := v.missing(s); missing {
		return secret.Value{}, fmt.Errorf("nobody knows %s", word)
	}
	if len(s.Command) > 0 {
		return cfg.command(ctx, s.Command, v)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	req, err := request(ctx, s, v)
	if err != nil {
		return secret.Value{}, err
	}
	resp, err := cfg.Sources.Once().Do(req)
	if err != nil {
		return secret.Value{}, fmt.Errorf("%s %s: %w", req.Method, req.URL.Host, credential.WithoutURL(err))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return secret.Value{}, err
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return secret.Value{}, fmt.Errorf("%s %s: %w", req.Method, req.URL.Host, &answerError{resp.StatusCode, complaint(b)})
	case len(b) > maxAnswer:
		return secret.Value{}, fmt.Errorf("%s %s: the answer has more than %d bytes", req.Method, req.URL.Host, maxAnswer)
	}
	return secret.New(string(b)), nil
}

// complaint is the beginning of what a server says about a refusal.
func complaint(b []byte) string {
	text := strings.ToValidUTF8(string(b[:min(len(b), 200)]), "")
	if text == "" {
		return ""
	}
	return strconv.QuoteToASCII(text)
}

func request(ctx context.Context, s policy.RotationStep, v values) (*http.Request, error) {
	escape, kind := inJSON, s.Headers["Content-Type"]
	media, _, _ := mime.ParseMediaType(kind)
	switch {
	case media == "application/x-www-form-urlencoded":
		escape = url.QueryEscape
	case kind != "" && media != "application/json" && s.Body != "":
		return nil, mend("use JSON or a form", "nobody knows how a value is written in a body of type %s", kind)
	}
	body := v.fill(s.Body, escape)
	req, err := http.NewRequestWithContext(ctx, s.Request.Method, v.fill(s.Request.URL, url.PathEscape), bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, errors.New("the address is none")
	}
	if body != "" && kind == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	for name, value := range s.Headers {
		req.Header.Set(name, v.fill(value, asIs))
	}
	return req, nil
}

// command has the secrets in its environment: its arguments can be read by everybody on the machine.
func (cfg Config) command(ctx context.Context, argv []string, v values) (secret.Value, error) {
	filled := make([]string, len(argv))
	for i, arg := range argv {
		filled[i] = v.fill(arg, asIs)
	}
	return cfg.Sources.Output(ctx, filled, []string{
		"AGENT_SANDBOX_TOKEN=" + v.token.Reveal(), "AGENT_SANDBOX_NEW=" + v.new.Reveal(), "AGENT_SANDBOX_OLD=" + v.old.Reveal(),
		"AGENT_SANDBOX_NEW_ID=" + v.newID, "AGENT_SANDBOX_OLD_ID=" + v.oldID,
	})
}

// pick finds a text or a number in an answer by a JSON pointer (RFC 6901); an empty pointer is the whole answer.
func pick(answer secret.Value, pointer string) (string, error) {
	if pointer == "" {
		return strings.TrimSpace(answer.Reveal()), nil
	}
	d := json.NewDecoder(strings.NewReader(answer.Reveal()))
	d.UseNumber()
	var at any
	if d.Decode(&at) != nil {
		return "", errors.New("the answer is no JSON")
	}
	for name := range strings.SplitSeq(pointer[1:], "/") {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		switch v := at.(type) {
		case map[string]any:
			at = v[name]
		case []any:
			i, err := strconv.ParseUint(name, 10, 31)
			if err != nil || int(i) >= len(v) {
				return "", fmt.Errorf("the answer has nothing at %s", pointer)
			}
			at = v[i]
		default:
			return "", fmt.Errorf("the answer has nothing at %s", pointer)
		}
	}
	switch v := at.(type) {
	case string:
		if v != "" {
			return v, nil
		}
	case json.Number:
		return v.String(), nil
	}
	return "", fmt.Errorf("the answer has no text at %s", pointer)
}
