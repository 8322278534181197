package event

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryTextIsRedacted: no field of any kind of event gets past, and the event of the caller stays as it is.
func TestEveryTextIsRedacted(t *testing.T) {
	for _, e := range everyEvent() {
		e := fill(reflect.TypeOf(e)).Interface().(Event)
		before, _ := json.Marshal(e)
		var got Event
		r, err := NewRecorder(Config{
			Run: testRun, Redact: func(s string) string { return strings.ReplaceAll(s, "s3cret", "[redacted:x]") },
			Handlers: []Handler{handlerFunc(func(env Envelope) { got = env.Data })},
		})
		if err != nil {
			t.Fatal(err)
		}
		if finished, ok := e.(RunFinished); ok {
			r.Finish(finished)
		} else {
			r.Emit(e)
		}
		text, _ := json.Marshal(got)
		if strings.Contains(string(text), "s3cret") || strings.Contains(string(before), `"`) && !strings.Contains(string(text), "redacted:x") && strings.Contains(string(before), "s3cret") {
			t.Errorf("%s: %s", e.Kind(), text)
		}
		if after, _ := json.Marshal(e); string(after) != string(before) {
			t.Errorf("%s: the event was changed to %s", e.Kind(), after)
		}
	}
}

type handlerFunc func(Envelope)

func (f handlerFunc) Handle(e Envelope) error {
	f(e)
	return nil
}

// fill has a secret in every text.
func fill(of reflect.Type) reflect.Value {
	v := reflect.New(of).Elem()
	switch of.Kind() {
	case reflect.String:
		v.SetString("a s3cret b")
	case reflect.Pointer:
		v.Set(reflect.New(of.Elem()))
		v.Elem().Set(fill(of.Elem()))
	case reflect.Slice:
		if of.Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.Append(v, fill(of.Elem())))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(of))
		v.SetMapIndex(fill(of.Key()), fill(of.Elem()))
	case reflect.Struct:
		for i := range of.NumField() {
			if of.Field(i).IsExported() {
				v.Field(i).Set(fill(of.Field(i).Type))
			}
		}
	}
	return v
}

func TestSummaryRedacted(t *testing.T) {
	s := foldAll(
		Redacted{Where: RedactedStdout, Credential: "github", Count: 1}, Redacted{Where: RedactedStderr, Credential: "github", Count: 2},
		Redacted{Where: RedactedStdout, Credential: "github", Count: 5},
	)
	want := []Redacted{{RedactedStdout, "github", 5}, {RedactedStderr, "github", 2}}
	if diff := cmp.Diff(want, s.Redacted); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
