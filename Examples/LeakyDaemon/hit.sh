#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Load for the leaky daemon: one hit by each of some clients.
#
#     hit.sh PORT FIRST LAST
set -eu
exec 3<> "/dev/tcp/127.0.0.1/$1"
for number in $(seq "$2" "$3"); do
  echo "hit client-$number" >&3
  read -r _ <&3
done
