package pyjson

import "testing"

// TestObjectsAreValues: configs are derived from each other; a change to one
// must not reach the other.
func TestObjectsAreValues(t *testing.T) {
	o := append(make(Object, 0, 8), Member{"a", 1}, Member{"b", 2})
	text := Dump(o)
	for name, tt := range map[string]struct {
		got  Object
		want string
	}{
		"replaced": {o.Set("a", 3), `{"a": 3, "b": 2}`},
		"appended": {o.Set("c", 3), `{"a": 1, "b": 2, "c": 3}`},
		"again":    {o.Set("d", 4), `{"a": 1, "b": 2, "d": 4}`},
		"deleted":  {o.Delete("a"), `{"b": 2}`},
		"nothing":  {o.Delete("z"), text},
	} {
		if got := Dump(tt.got); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	one, two := o.Set("x", 1), o.Set("y", 2)
	if Dump(one) != `{"a": 1, "b": 2, "x": 1}` || Dump(two) != `{"a": 1, "b": 2, "y": 2}` || Dump(o) != text {
		t.Errorf("%s and %s share memory, from %s", Dump(one), Dump(two), Dump(o))
	}
	if v, ok := o.Get("b"); v != 2 || !ok {
		t.Errorf("b is %v, %v", v, ok)
	}
	if v, ok := o.Get("z"); v != nil || ok {
		t.Errorf("z is %v, %v", v, ok)
	}
}
