package storage_test

import (
	"fmt"

	"github.com/tensorpress/tensorpress/storage"
)

// What is not said is left to configs and defaults: that nothing is rotated is
// something else than that nothing is said of it.
func ExampleSettings() {
	fmt.Println(storage.Settings{Dtype: "uint4", GroupSize: new(64)})
	fmt.Println(storage.Settings{Hadamard: new(false)})
	// Output:
	// {Dtype: uint4, GroupSize: 64}
	// {Hadamard: false}
}
