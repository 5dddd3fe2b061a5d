package report

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

// TestRoundTrip: who keeps a report and reads it again must have the same one.
func TestRoundTrip(t *testing.T) {
	options := Options{
		{"format", "sdnq"}, {"group_size", json.Number("-1")}, {"orig_shape", []any{json.Number("2"), json.Number("3")}},
		{"use_svd", true}, {"none", nil}, {"deep", Options{{"z", "é\u2028<"}, {"a", []any{Options{}}}}}, {"empty", []any{}},
	}
	figures := Figures{Error{ptr(0.25), nil}, ptr(1.0), &Merged{ptr(0.01), ptr(0.99), nil}}
	for _, v := range []any{
		&Report{
			Source: "a", Layout: "comfy", Files: []string{"f"}, Notes: []string{"n"}, Needs: []Need{{"comfyui ≥ 1", "x", 2}}, Next: &Next{"a", "f", "n", "c", "t"},
			Layers: []Layer{{Name: "l", Action: Quantize, Options: options, Shape: []int{2, 3}, Figures: &figures}, {Name: "k", Action: Keep, Options: Options{}, Shape: []int{}}},
			Total:  &Error{ptr(0.5), ptr(3.0)}, Merged: &Merged{nil, ptr(1.0), ptr(-2.5)}, Seconds: 1.5,
			Provenance: &Provenance{"1", "quantize", Options{{"dtype", "int8"}}, []File{{"s", 1, "00"}}, []File{{"o", 2, "01"}}},
		},
		&Difference{
			A: Side{"a", "comfy", 1, 2}, Counts: []Count{{SameBytes, 1}}, Metadata: []MetadataPair{{"k", nil, ptr("v")}}, Notes: []string{"n"},
			Tensors: []Pair{{Name: "t", Finding: OtherValue, A: &Stored{"f", "d", []int{1}, 2}, Figures: &figures}},
		},
		&Verification{Problems: []Problem{{"t", "p"}}, Layers: []LayerError{{Name: "l", Figures: figures}}, Notes: []string{"n"}},
		&Inspection{
			Path: "p", Part: "shard 1 of 2", Metadata: map[string]string{"k": "v"}, Tensors: []Tensor{{"t", "F32", []int{1}, 4, "00"}},
			Layers: []StoredLayer{{Name: "l", Options: options, Shape: []int{}, Tensors: []Tensor{}, Problem: "p"}},
		},
	} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		got := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(text, got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if !reflect.DeepEqual(got, v) {
			t.Errorf("%s comes back as %+v", text, got)
		}
	}
}

// TestOptionsKeepTheirOrder, which is that of the file.
func TestOptionsKeepTheirOrder(t *testing.T) {
	const text = `{"b":1e5,"a":{"d":null,"c":[true,"x"]}}`
	var o Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(o); err != nil || string(got) != text {
		t.Errorf("got %s, %v", got, err)
	}
	if v, ok := o.Get("b"); !ok || v != json.Number("1e5") {
		t.Errorf("b is %v, %v", v, ok)
	}
	for _, bad := range []string{`[]`, `"x"`, `{"a":`} {
		if err := json.Unmarshal([]byte(bad), &o); err == nil {
			t.Errorf("%s is taken for options", bad)
		}
	}
	var none Options
	if got, _ := json.Marshal(none); !strings.EqualFold(string(got), "{}") {
		t.Errorf("none are written as %s", got)
	}
}

// TestSize: people read these.
func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 1_500_000_000: "1.5 GB", 5e15: "5000 TB"} {
		if got := Size(n); got != want {
			t.Errorf("%d is %s, want %s", n, got, want)
		}
	}
}
