package pyjson

import (
	"encoding/json"
	"testing"
)

// TestDumpEqualsPython: the expected texts are what Python 3.11 printed.
func TestDumpEqualsPython(t *testing.T) {
	tests := []struct{ in, compact, sorted string }{
		{`{}`, `{}`, "{}\n"},
		{`[]`, `[]`, "[]\n"},
		{`{"b":1,"a":[1,2]}`, `{"b": 1, "a": [1, 2]}`, "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": 1\n}\n"},
		{`{"x":{"y":[],"w":{}},"n":null,"t":true}`, `{"x": {"y": [], "w": {}}, "n": null, "t": true}`,
			"{\n  \"n\": null,\n  \"t\": true,\n  \"x\": {\n    \"w\": {},\n    \"y\": []\n  }\n}\n"},
		{`"é\u007f😀\"\\\n\u0001/"`, `"\u00e9\u007f\ud83d\ude00\"\\\n\u0001/"`, "\"\\u00e9\\u007f\\ud83d\\ude00\\\"\\\\\\n\\u0001/\"\n"},
		{`[NaN, Infinity,-Infinity]`, `[NaN, Infinity, -Infinity]`, "[\n  NaN,\n  Infinity,\n  -Infinity\n]\n"},
		{`1e-05`, `1e-05`, "1e-05\n"},
	}
	for _, tt := range tests {
		v, err := Parse([]byte(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		if got := Dump(v); got != tt.compact {
			t.Errorf("Dump(%s) = %s, want %s", tt.in, got, tt.compact)
		}
		if got := DumpSorted(v); got != tt.sorted {
			t.Errorf("DumpSorted(%s) = %q, want %q", tt.in, got, tt.sorted)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	deep := ""
	for range 100 {
		deep += "["
	}
	for _, text := range []string{``, `{`, `{"a":1,"a":2}`, `{} {}`, `{"a"}`, `[1,]`, deep, "nul", `01`, `"a`, `"\q"`, `{"a":}`, `+1`, "\"\n\""} {
		if v, err := Parse([]byte(text)); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, v)
		}
	}
	if _, err := ParseObject([]byte(`[]`)); err == nil {
		t.Error("ParseObject took a list")
	}
}

// TestStringsAreJSON: names of modules must be those that were written, whether
// or not they have to be decoded.
func TestStringsAreJSON(t *testing.T) {
	for _, text := range []string{`""`, `"a.b-1 "`, `"a\"b"`, `"\\"`, `"\\\""`, `"\u0041\ud83d\ude00"`, `"é🙂"`, "\"\xff\"", "\"\x7f\"", `"\n"`} {
		var want string
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got, err := Parse([]byte(text)); err != nil || got != want {
			t.Errorf("Parse(%s) = %q, %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `"\ud800"`, `[1e5,-0.5]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse([]byte(Dump(v)))
		if err != nil || Dump(again) != Dump(v) {
			t.Errorf("%q dumps as %q, which reads as %v, %v", text, Dump(v), again, err)
		}
	})
}
