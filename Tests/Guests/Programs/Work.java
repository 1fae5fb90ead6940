// SPDX-License-Identifier: Apache-2.0
// Threads, native memory, and faults that Java makes exceptions of: prints what it has computed.

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import java.util.zip.*;

public class Work {
  static String work(int seed) throws Exception {
    Map<String, String> words = new HashMap<>();
    for (int i = 0; i < 30000; i++) {
      words.merge("key " + (i * 7919L + seed) % 10007, "" + (char) ('a' + i % 26), String::concat);
    }
    String text = words.entrySet().stream().map(Object::toString).sorted().collect(Collectors.joining(","));
    ByteArrayOutputStream packed = new ByteArrayOutputStream();
    try (GZIPOutputStream stream = new GZIPOutputStream(packed)) {
      stream.write(text.getBytes());
    }
    byte[] again =
        new GZIPInputStream(new java.io.ByteArrayInputStream(packed.toByteArray())).readAllBytes();
    return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(again));
  }

  static int deep(int n) {
    return n + deep(n + 1);
  }

  public static void main(String[] arguments) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(8);
    List<Future<String>> answers = new ArrayList<>();
    for (int n = 0; n < 8; n++) {
      int seed = n;
      answers.add(pool.submit(() -> work(seed)));
    }
    for (Future<String> answer : answers) System.out.println(answer.get());
    pool.shutdown();
    long sum = 0;
    for (int n = 0; n < 300; n++) {
      ByteBuffer buffer = ByteBuffer.allocateDirect(100_000);
      buffer.put(n, (byte) n);
      sum += buffer.get(n);
    }
    System.out.println("direct " + sum);
    int caught = 0;
    String[] nothing = new String[1];
    for (int n = 0; n < 100_000; n++) {
      try {
        caught += nothing[0].length();
      } catch (NullPointerException e) {
        caught++;
      }
    }
    System.out.println("null " + caught);
    try {
      System.out.println(deep(0));
    } catch (StackOverflowError e) {
      System.out.println("too deep");
    }
    Process child = new ProcessBuilder("seq", "3").start();
    System.out.println(new String(child.getInputStream().readAllBytes()).trim() + " " + child.waitFor());
    System.gc();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("end")));
    System.exit(3);
  }
}
