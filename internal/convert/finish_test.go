package convert_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/remote"
	"github.com/tensorpress/tensorpress/internal/storetest"
)

// TestFinishOfTwo: stores have no locks, and a call whose work another does at the same
// time finds it done, at whichever request the other comes between.
func TestFinishOfTwo(t *testing.T) {
	s := storetest.New("models")
	defer s.Close()
	for name, value := range s.Environment() {
		t.Setenv(name, value)
	}
	model, _ := adapted(t)
	folder := inFolder(t, model)
	step := int64(1)
	if testing.Short() {
		step = 6
	}
	for at := int64(1); ; at += step {
		for name := range s.Objects() {
			s.Remove(name)
		}
		dest, _, err := remote.Dest("s3://models/out")
		if err != nil {
			t.Fatal(err)
		}
		o := tensorpress.Options{Part: 1, Parts: 1, ShardSize: 64 << 10, Layer: tensorpress.Settings{Dtype: "int8"}}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(folder), dest, o); err != nil {
			t.Fatal(err)
		}
		var requests atomic.Int64
		s.Fail(func(int, http.ResponseWriter, *http.Request) bool {
			if requests.Add(1) == at {
				s.Fail(nil)
				if _, err := tensorpress.Finish(t.Context(), dest, tensorpress.FinishOptions{}); err != nil {
					t.Errorf("the other: %v", err)
				}
			}
			return false
		})
		_, err = tensorpress.Finish(t.Context(), dest, tensorpress.FinishOptions{})
		if err != nil {
			t.Errorf("at request %d: %v", at, err)
		}
		weights := 0
		for name := range s.Objects() {
			if strings.Contains(name, ".tensorpress/") {
				t.Errorf("at request %d: %s is left", at, name)
			}
			if strings.HasSuffix(name, ".safetensors") {
				weights++
			}
		}
		if all := s.Objects(); weights < 2 || all["out/config.json"] == nil || all["out/model.safetensors.index.json"] == nil {
			t.Errorf("at request %d: %d weight files, or no config, or no index", at, weights)
		}
		if requests.Load() < at {
			return
		}
	}
}
