// SPDX-License-Identifier: Apache-2.0
// Go and C that allocate and call each other: prints what they have computed, and ends
// when there is a file of the name that is its argument.

package main

/*
#include <stdlib.h>
#include <string.h>

extern long goFromC(long);

static long churn(long seed) {
  long sum = 0;
  void *kept[64] = {0};
  for (long i = 0; i < 20000; i++) {
    long place = (i * 7919 + seed) % 64;
    free(kept[place]);
    size_t size = (size_t)(1 + (i * 31 + seed) % 3000);
    kept[place] = memset(malloc(size), (int)i, size);
    sum += ((unsigned char *)kept[place])[size - 1];
  }
  for (int i = 0; i < 64; i++) free(kept[i]);
  return sum;
}

static long calls_back(long n) {
  char *block = malloc(100);
  long answer = goFromC(n);
  free(block);
  return answer;
}
*/
import "C"

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

//export goFromC
func goFromC(n C.long) C.long {
	if n <= 0 {
		return 1
	}
	text := C.CString(strings.Repeat("x", int(n)))
	defer C.free(unsafe.Pointer(text))
	return C.calls_back(n-1) + C.long(len(C.GoString(text)))
}

// A stack that grows has to move.
func deep(n int) int {
	var page [512]byte
	page[n%512] = byte(n)
	if n == 0 {
		return int(C.calls_back(10))
	}
	return deep(n-1) + int(page[n%512])
}

func work(seed int) string {
	words := map[string]string{}
	for i := 0; i < 20000; i++ {
		key := fmt.Sprintf("key %d", (i*7919+seed)%10007)
		words[key] += string(rune('a' + i%26))
	}
	keys := make([]string, 0, len(words))
	for key := range words {
		keys = append(keys, key+words[key])
	}
	sort.Strings(keys)
	return fmt.Sprintf("%x %d %d", sha256.Sum256([]byte(strings.Join(keys, ","))), C.churn(C.long(seed)), deep(2000))
}

func main() {
	heard := make(chan os.Signal, 10)
	signal.Notify(heard, syscall.SIGHUP)
	answers := make([]string, 16)
	var group sync.WaitGroup
	for n := range answers {
		group.Add(1)
		go func(n int) {
			defer group.Done()
			runtime.LockOSThread() // ends its thread with it
			answers[n] = work(n)
		}(n)
	}
	group.Wait()
	runtime.GC()
	for n, answer := range answers {
		fmt.Println(n, answer)
	}
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	fmt.Println(<-heard)
	func() {
		defer func() { fmt.Println("recovered:", recover()) }()
		var none *int
		fmt.Println(*none)
	}()
	for {
		if _, err := os.Stat(os.Args[1]); err == nil {
			os.Exit(4)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
