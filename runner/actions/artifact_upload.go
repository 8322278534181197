package actions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/org/agent-sandbox/runner/secret"
)

// Bounds of an upload.
const (
	blockSize   = int64(8 << 20) // bytes
	rounds      = 4              // how often an artifact is begun
	maxArtifact = 4 << 30        // bytes
	maxNameSize = 200            // bytes of an artifact's name
)

// Artifact is one that the service has.
type Artifact struct {
	ID     int64
	Name   string
	Size   int64  // of the zip, in bytes
	SHA256 string // of the zip, in hex
}

// checkArtifactName refuses what the service does, and more than it likes.
func checkArtifactName(name string) error {
	if name == "" || len(name) > maxNameSize || strings.ContainsAny(name, "\":<>|*?\\/") || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q can't be the name of an artifact", name)
	}
	return nil
}

// Upload stores a zip as an artifact, until expires or, if that is zero, as long as the repository keeps them. The name must be new in the
// workflow run. If an answer was lost after which the service knows the name, the artifact has a number at the end of it.
func (a *Artifacts) Upload(ctx context.Context, name string, z *Zip, expires time.Time) (Artifact, error) {
	if err := checkArtifactName(name); err != nil {
		return Artifact{}, err
	}
	if z.Size > maxArtifact {
		return Artifact{}, fmt.Errorf("artifact %s: %d bytes are more than the %d that are uploaded", name, z.Size, int64(maxArtifact))
	}
	done := Artifact{Name: name, Size: z.Size, SHA256: z.SHA256}
	for round := 1; ; round++ {
		var err error
		done.ID, err = a.upload(ctx, done.Name, z, expires)
		again := errors.Is(err, errTaken) || a.Appends && errors.Is(err, errBlock)
		switch {
		case err == nil:
			return done, nil
		case !again || round == rounds || ctx.Err() != nil:
			return Artifact{}, fmt.Errorf("artifact %s: %w", name, err)
		case errors.Is(err, errTaken):
			done.Name = fmt.Sprintf("%s-%d", name, round+1)
		}
		if a.Retried != nil {
			a.Retried(fmt.Sprintf("artifact %s: from the beginning", name))
		}
	}
}

var (
	errTaken = errors.New("the workflow run has an artifact of that name")
	errBlock = errors.New("a block did not arrive")
)

// upload is one round: create, upload the blocks, list them, finalize.
func (a *Artifacts) upload(ctx context.Context, name string, z *Zip, expires time.Time) (int64, error) {
	create := map[string]any{"name": name, "version": 4}
	if !expires.IsZero() {
		create["expires_at"] = expires.UTC().Format(time.RFC3339)
	}
	created, err := a.call(ctx, "CreateArtifact", create)
	if s, ok := errors.AsType[*statusError](err); ok && s.status == http.StatusConflict {
		return 0, errTaken
	}
	if err != nil {
		return 0, err
	}
	to, err := a.signed(created.text("signed_upload_url"))
	if err != nil {
		return 0, err
	}
	if err := a.putBlocks(ctx, to, z); err != nil {
		return 0, err
	}
	final, err := a.call(ctx, "FinalizeArtifact", map[string]any{"name": name, "size": strconv.FormatInt(z.Size, 10), "hash": "sha256:" + z.SHA256})
	if err != nil {
		return 0, err
	}
	id := final.number("artifact_id")
	if id <= 0 {
		return 0, errors.New("FinalizeArtifact: the answer has no id")
	}
	return id, nil
}

// signed checks an address that the service gave, and has its signature masked: who has it can write, or read, the artifact.
func (a *Artifacts) signed(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.RawQuery == "" || u.Scheme != "https" && (u.Scheme != "http" || strings.HasPrefix(a.URL, "https:")) {
		return "", errors.New("the service gave no address to upload to")
	}
	if a.Mask != nil {
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			if raw, ok := strings.CutPrefix(pair, "sig="); ok {
				a.Mask(secret.New(raw))
				if plain, err := url.QueryUnescape(raw); err == nil && plain != raw {
					a.Mask(secret.New(plain))
				}
			}
		}
	}
	return address, nil
}

// blockList is the body of Azure's Put Block List.
type blockList struct {
	XMLName xml.Name `xml:"BlockList"`
	Latest  []string `xml:"Latest"`
}

// putBlocks uploads one block after the other: act stores them as they arrive.
func (a *Artifacts) putBlocks(ctx context.Context, to string, z *Zip) error {
	client := a.client()
	if a.Appends {
		client.RetryMax = 0 // the first part of a block may be stored already
	}
	var list blockList
	size := cmp.Or(a.block, blockSize)
	for at := int64(0); at < z.Size; at += size {
		id := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "block-%08d", len(list.Latest)))
		part := func() (io.Reader, error) {
			return block{io.NewSectionReader(z.file, at, min(size, z.Size-at))}, nil
		}
		if err := put(ctx, client, to+"&comp=block&blockid="+url.QueryEscape(id), "application/octet-stream", part); err != nil {
			return fmt.Errorf("%w: %d of %d bytes: %w", errBlock, at, z.Size, err)
		}
		list.Latest = append(list.Latest, id)
	}
	body, err := xml.Marshal(list)
	if err != nil {
		return err
	}
	whole := func() (io.Reader, error) { return bytes.NewReader(append([]byte(xml.Header), body...)), nil }
	if err := put(ctx, a.client(), to+"&comp=blocklist", "application/xml", whole); err != nil {
		return fmt.Errorf("list of blocks: %w", err)
	}
	return nil
}

// block is part of a file, of a length that is known.
type block struct{ *io.SectionReader }

// Len is for retryablehttp: Azure wants a Content-Length.
func (b block) Len() int { return int(b.Size()) }

// put sends to a signed address. The job's token stays away from there.
func put(ctx context.Context, client *retryablehttp.Client, to, kind string, body retryablehttp.ReaderFunc) error {
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPut, to, body)
	if err != nil {
		return noURL(err)
	}
	req.Header.Set("Content-Type", kind)
	if kind == "application/xml" {
		req.Header.Set("X-Ms-Blob-Content-Type", "application/zip")
	}
	resp, err := client.Do(req)
	if err != nil {
		return noURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return &statusError{resp.StatusCode, resp.Header.Get("X-Ms-Error-Code")}
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return err
}
