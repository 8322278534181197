package event

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// The places in which a secret was met.
const (
	RedactedStdout  = "stdout"
	RedactedStderr  = "stderr"
	RedactedEvents  = "events"  // in an argument, a name, a path, a reason: what the record and the terminal say
	RedactedChanges = "changes" // in a file that the agent changed, where it is left: a change set is what the agent made
)

// Redacted says that a secret was met where it should not be ("output.redacted"). Count is the total so far: a later event replaces an
// earlier one of the same place and credential.
type Redacted struct {
	Where      string `json:"where"`
	Credential string `json:"credential"`
	Count      uint64 `json:"count"`
}

// Kind is "output.redacted".
func (Redacted) Kind() string { return "output.redacted" }

func (Redacted) sealed() {}

// foldRedacted replaces the count of one place and credential. The bound is for a log that somebody else wrote.
func foldRedacted(all []Redacted, e Redacted) []Redacted {
	i := slices.IndexFunc(all, func(o Redacted) bool { return o.Where == e.Where && o.Credential == e.Credential })
	if i < 0 {
		return list(all, e)
	}
	all[i] = e
	return all
}

// Text says it to a person.
func (e Redacted) Text() string {
	times := fmt.Sprintf("%d times", e.Count)
	if e.Count == 1 {
		times = "once"
	}
	switch e.Where {
	case RedactedChanges:
		return fmt.Sprintf("the credential %s is in the changes, %s: do not publish them", clip(e.Credential, reportWidth/2), times)
	case RedactedEvents:
		return fmt.Sprintf("the credential %s was taken out of the record, %s", clip(e.Credential, reportWidth/2), times)
	}
	return fmt.Sprintf("the credential %s was taken out of %s, %s", clip(e.Credential, reportWidth/2), clip(e.Where, reportWidth/2), times)
}

// redactEvent applies redact to every text in e. It returns e itself when that changes nothing.
func redactEvent(e Event, redact func(string) string) Event {
	if v, changed := redactValue(reflect.ValueOf(e), redact); changed {
		return v.Interface().(Event)
	}
	return e
}

// redactValue never changes what v points to: whoever emitted the event still has it.
func redactValue(v reflect.Value, redact func(string) string) (reflect.Value, bool) {
	switch v.Kind() {
	case reflect.String:
		s := redact(v.String())
		if s == v.String() {
			return v, false
		}
		out := reflect.New(v.Type()).Elem()
		out.SetString(s)
		return out, true
	case reflect.Pointer:
		if v.IsNil() {
			return v, false
		}
		inner, changed := redactValue(v.Elem(), redact)
		if !changed {
			return v, false
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(inner)
		return out, true
	case reflect.Struct:
		return redactStruct(v, redact)
	case reflect.Slice:
		return redactSlice(v, redact)
	case reflect.Map:
		return redactMap(v, redact)
	}
	return v, false
}

func redactStruct(v reflect.Value, redact func(string) string) (reflect.Value, bool) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		return v, false
	}
	out, changed := v, false
	for i := range v.NumField() {
		field, differs := redactValue(v.Field(i), redact)
		if !differs {
			continue
		}
		if !changed {
			changed = true
			out = reflect.New(v.Type()).Elem()
			out.Set(v)
		}
		out.Field(i).Set(field)
	}
	return out, changed
}

func redactSlice(v reflect.Value, redact func(string) string) (reflect.Value, bool) {
	out, changed := v, false
	for i := range v.Len() {
		item, differs := redactValue(v.Index(i), redact)
		if !differs {
			continue
		}
		if !changed {
			changed = true
			out = reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(out, v)
		}
		out.Index(i).Set(item)
	}
	return out, changed
}

func redactMap(v reflect.Value, redact func(string) string) (reflect.Value, bool) {
	out, changed := reflect.MakeMap(v.Type()), false
	for key, value := range v.Seq2() {
		k, one := redactValue(key, redact)
		e, two := redactValue(value, redact)
		changed = changed || one || two
		out.SetMapIndex(k, e)
	}
	if !changed {
		return v, false
	}
	return out, true
}
