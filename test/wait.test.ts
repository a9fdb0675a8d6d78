import { limited, poll } from '../lib/wait';

const late = () => 'it did not come';

test('what is settled at once is undone once', async () => {
  let undone = 0;
  const start = (resolve: (value: number) => void, reject: (error: unknown) => void) => {
    resolve(7);
    reject(new Error('too late'));
    return () => undone++;
  };
  expect(await limited({ timeout: 1000 }, late, start)).toBe(7);
  expect(undone).toBe(1);
});

test('without an end, what was begun is undone all the same', async () => {
  let undone = 0;
  const start = (resolve: (value: number) => void) => {
    setImmediate(() => resolve(5));
    return () => undone++;
  };
  expect(await limited({}, late, start)).toBe(5);
  expect(undone).toBe(1);
});

test('who is told of the end finds it undone', async () => {
  let undone = false;
  const start = () => () => {
    undone = true;
  };
  const controller = new AbortController();
  const waiting = limited<void>({ signal: controller.signal }, late, start);
  controller.abort(new Error('enough'));
  // At once, not when the promise's handlers run.
  expect(undone).toBe(true);
  await expect(waiting).rejects.toThrow('enough');
});

test('the timeout says what did not happen', async () => {
  const waiting = limited<void>({ timeout: 1 }, late, () => () => {});
  await expect(waiting).rejects.toMatchObject({
    code: 'ETIMEDOUT',
    syscall: 'poll',
    reason: 'it did not come',
  });
});

test('a start that throws is a rejection', async () => {
  const start = () => {
    throw new Error('no');
  };
  await expect(limited<void>({}, late, start)).rejects.toThrow('no');
});

test('poll looks until there is something, at least once, and gives up when a look throws', async () => {
  let looks = 0;
  expect(await poll(() => (++looks === 100 ? 'found' : undefined), {}, late)).toBe('found');
  expect(await poll(() => 'at once', { timeout: 0 }, late)).toBe('at once');
  looks = 0;
  await expect(poll(() => void looks++, { timeout: 0 }, late)).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  expect(looks).toBe(1);
  const broken = () => {
    throw new Error('gone');
  };
  await expect(poll(broken, {}, late)).rejects.toThrow('gone');
});

test('the time is over at its end, however long the pause between two looks is', async () => {
  let looks = 0;
  const waiting = poll(() => void looks++, { timeout: 10, interval: 60_000 }, late);
  await expect(waiting).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  expect(looks).toBe(2);
});

test.each([
  [{ timeout: -1 }, RangeError],
  [{ timeout: 2 ** 31 }, RangeError],
  [{ timeout: NaN }, RangeError],
  [{ timeout: '5' as unknown as number }, TypeError],
  [{ interval: -1 }, RangeError],
])('options that cannot be: %j', async (options, type) => {
  await expect(poll(() => 1, options, late)).rejects.toThrow(type);
});
