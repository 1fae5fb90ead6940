# SPDX-License-Identifier: Apache-2.0
# A bit of everything that allocates: prints what it has computed.
use strict;
use warnings;
use threads;
use Digest::SHA qw(sha256_hex);
use Storable qw(freeze thaw dclone);
use POSIX qw(:sys_wait_h);

$| = 1;

sub work {
    my ($seed) = @_;
    my %words;
    for my $i (1 .. 20000) {
        my $n = ($i * 7919 + $seed) % 10007;
        $words{"key $n"} .= chr(97 + $i % 26);
    }
    my $text = join ",", map { "$_=$words{$_}" } sort { $words{$a} cmp $words{$b} || $a cmp $b } keys %words;
    $text =~ s/(key )(\d+)=([a-m]*)/$3$2/g;
    my $copy = thaw(freeze(dclone(\%words)));
    return sha256_hex($text . scalar(keys %$copy));
}

print "plain: ", work(1), "\n";
my @threads = map { my $n = $_; threads->create(sub { work($n) }) } 1 .. 3;
print "thread: ", $_->join, "\n" for @threads;

my $heard = 0;
local $SIG{USR1} = sub { my @a = map { "x" x $_ } 1 .. 50; $heard++ };
for my $n (1 .. 8) {
    my $child = fork // die "fork: $!";
    if (!$child) { kill USR1 => getppid; exit(length(work($n)) == 64 ? $n : 99) }
    1 while waitpid($child, 0) != $child;
    print "child: ", WEXITSTATUS($?), "\n";
}
print "heard: ", ($heard > 0 ? "yes" : "no"), "\n";
print "piped: ", scalar(qx{seq 1 1000 | sort -r | head -n 3 | tr '\\n' ' '}), "\n";
my @tree = (undef) x 2;
for (1 .. 200000) { @tree = ([@tree[0, 1]], $_) ; @tree = (undef) x 2 if $_ % 1000 == 0 }
eval { die { reason => "thrown" } };
print "eval: $@->{reason}\n";
print "done\n";
