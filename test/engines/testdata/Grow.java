// SPDX-License-Identifier: Apache-2.0

/**
 * Grow takes memory until the JVM is refused more. Grow.class is made of it by
 * "javac --release 8 -g:none Grow.java", so that tests need a JRE alone.
 */
public class Grow {
    public static void main(String[] args) {
        Object[] keep = new Object[1 << 16];
        for (int n = 0;; n++) {
            try {
                keep[n] = new byte[1 << 20];
            } catch (OutOfMemoryError e) {
                if (args.length == 0) {
                    throw e;
                }
                keep = null;
                e.printStackTrace(); // told, and overcome
                return;
            }
        }
    }
}
